//! What changes rules and orders: each change is made on a copy, published, and kept only if the kernel took it.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use serde_json::{Value, json};
use weir_api::proxy::{Change, ChangeAnswer};
use weir_datapath::redirect::{Place, RedirectError};

use super::{
    Proxy, Publishing,
    error::{ChangeError, datapath_error},
    news::News,
    places::places_notes,
    publish,
};
use crate::{
    causes::with_causes,
    journal,
    redirect::{
        Source, Sources,
        diff::diff_of,
        engine::Engine,
        health::Target,
        overlap::is_apart,
        resolve::services_of,
        rules::{RuleSet, Rules, judge_set, unlike},
        text::AddressText,
    },
};

impl Proxy {
    /// Makes the rules of commands and file those of this file.
    pub fn apply(&mut self, wanted: Rules, dry_run: bool) -> Result<ChangeAnswer, ChangeError> {
        let (rules, sources) = merged(&self.written, &self.sources, &wanted.rules);
        let commanded = self.places.iter().filter(|(_, source)| *source == Source::Command).cloned();
        let mut places: Vec<(Place, Source)> = commanded.collect();
        for place in wanted.places {
            if !places.iter().any(|(other, _)| other.interface == place.interface) {
                places.push((place, Source::File));
            }
        }
        self.check_places(&places)?;
        let mut answer = self.change(rules, sources, dry_run)?;
        // A file that names no interface leaves those that there are.
        if places.iter().any(|(_, source)| *source == Source::File) {
            answer.notes.extend(places_notes(&self.places, &places));
            if !dry_run {
                self.settle_places(places)?;
                self.save();
            }
        }
        Ok(answer)
    }

    /// Adds one rule, or replaces the one of that name.
    pub fn put_rule(
        &mut self,
        name: &str,
        mut document: Value,
        dry_run: bool,
    ) -> Result<ChangeAnswer, ChangeError> {
        if let Some(object) = document.as_object_mut() {
            object.insert("name".to_owned(), name.into());
        }
        let wanted = Rules::of_tree(json!({ "rules": [document] })).map_err(|mut problems| {
            problems.map_paths(|path| path.trim_start_matches("rules[0]").trim_start_matches('.').to_owned());
            ChangeError::Rules(problems)
        })?;
        let (mut rules, mut sources) = (self.written.clone(), self.sources.clone());
        let was_in_file = sources.get(name) == Some(&Source::File);
        rules.extend(wanted.rules);
        sources.insert(name.into(), Source::Command);
        let mut answer = self.change(rules, sources, dry_run)?;
        if was_in_file {
            answer.notes.push(format!(
                "{name} was a rule of the file: the next change of the file brings that one back"
            ));
        }
        Ok(answer)
    }

    /// Removes a rule. Its connections go on for its drain time, or end now.
    pub fn remove_rule(&mut self, name: &str, ends_now: bool) -> Result<ChangeAnswer, ChangeError> {
        if !self.written.contains_key(name) {
            return Err(self.no_rule(name));
        }
        let (mut rules, mut sources) = (self.written.clone(), self.sources.clone());
        rules.remove(name);
        let was_in_file = sources.remove(name) == Some(Source::File);
        let mut answer = self.change(rules, sources, false)?;
        if ends_now {
            self.engine.end_leaving(Instant::now());
            self.has_to_publish();
            self.publish_if_needed();
        }
        if was_in_file {
            answer
                .notes
                .push(format!("{name} is still in the file: the next change of the file brings it back"));
        }
        Ok(answer)
    }

    /// Lets a rule take new connections or not.
    pub fn drain_rule(&mut self, name: &str, is_drained: bool) -> Result<(), ChangeError> {
        let Some(rule) = self.engine.rules().get(name) else { return Err(self.no_rule(name)) };
        if rule.is_drained && !is_drained {
            return Err(ChangeError::DrainedByFile(format!("rule {name}")));
        }
        self.order(|engine| engine.drain_rule(name, is_drained))
    }

    /// Lets a backend take new connections or not.
    pub fn drain_backend(&mut self, target: &Target, is_drained: bool) -> Result<(), ChangeError> {
        let backend = self.engine.backend(target).ok_or_else(|| self.no_backend(target))?;
        if backend.is_drained && !is_drained {
            return Err(ChangeError::DrainedByFile(AddressText(target.backend).to_string()));
        }
        self.order(|engine| engine.drain(target, is_drained))
    }

    /// Gives a backend another weight.
    pub fn weigh_backend(&mut self, target: &Target, weight: u16) -> Result<(), ChangeError> {
        self.engine.backend(target).ok_or_else(|| self.no_backend(target))?;
        self.order(|engine| engine.weigh(target, weight))
    }

    /// Reads the rules file again. What is wrong with it is said, and nothing changes.
    pub(in crate::redirect) fn reload(&mut self, text: Result<String, String>) {
        let outcome = text
            .and_then(|text| Rules::read(&text).map_err(|problems| problems.to_string()))
            .and_then(|rules| self.apply(rules, false).map_err(|error| with_causes(&error)));
        match outcome {
            Ok(answer) => {
                self.file_trouble = None;
                let count = |change| answer.diff.rules.iter().filter(|rule| rule.change == change).count();
                let (added, removed, changed) =
                    (count(Change::Added), count(Change::Removed), count(Change::Changed));
                journal::info(format_args!(
                    "the rules file was read again: {added} added, {removed} removed, {changed} changed"
                ));
            }
            Err(reason) => {
                journal::error(format_args!(
                    "the rules file changed, and nothing was done about it: {reason}"
                ));
                self.file_trouble = Some(reason);
            }
        }
    }

    /// The backend that a path names.
    pub fn target(rule: &str, backend: SocketAddr) -> Target {
        Target { rule: rule.into(), backend }
    }

    /// Makes these the rules, all or nothing.
    fn change(
        &mut self,
        rules: RuleSet,
        sources: Sources,
        dry_run: bool,
    ) -> Result<ChangeAnswer, ChangeError> {
        let changed = unlike(&self.written, &rules);
        if !is_apart(&changed, &rules, self.engine.owned()) {
            judge_set(&rules).map_err(ChangeError::Rules)?;
        }
        if !services_of(&rules).is_empty() {
            self.watching.connect().map_err(ChangeError::NoApi)?;
        }
        let diff = diff_of(&changed);
        if dry_run {
            return Ok(ChangeAnswer { diff, is_applied: false, notes: Vec::new() });
        }
        // What was heard before is not part of this change.
        self.publish_if_needed();
        let mut next = self.engine.clone();
        next.replace(self.with_endpoints(&rules), Instant::now());
        self.keep(next)?;
        (self.written, self.sources) = (rules, sources);
        self.follow();
        self.look_at_endpoints();
        self.waiting.keep(|target| self.engine.is_checked(target));
        self.tell_services();
        self.save();
        Ok(ChangeAnswer { diff, is_applied: true, notes: Vec::new() })
    }

    /// Rules with the endpoints of their services; those of which the kernel refused these keep what they have, unless they
    /// are what is changed.
    fn with_endpoints(&self, rules: &RuleSet) -> RuleSet {
        let mut all = self.services.expand_changed(rules, self.engine.rules());
        for (news, _) in self.waiting.troubles() {
            let News::Endpoints(refused) = news else { continue };
            let name = &refused.name;
            if let Some(known) =
                self.engine.rules().get(name).filter(|_| rules.get(name) == self.written.get(name))
            {
                all.insert(Arc::clone(name), Arc::clone(known));
            }
        }
        all
    }

    fn order(&mut self, order: impl FnOnce(&mut Engine) -> bool) -> Result<(), ChangeError> {
        self.publish_if_needed();
        let before = self.engine.orders().clone();
        order(&mut self.engine);
        let outcome = self.publish_engine();
        if outcome.is_err() {
            self.engine.restore(before);
        }
        self.settle_change(outcome)?;
        self.save();
        Ok(())
    }

    /// Publishes; only then it counts.
    fn keep(&mut self, mut next: Engine) -> Result<(), ChangeError> {
        let outcome = publish(&mut self.datapath, &mut self.has_changed, &next.desired());
        self.settle_change(outcome)?;
        self.engine = next;
        Ok(())
    }

    /// What an error left behind half done is published again as it was before.
    fn settle_change(&mut self, outcome: Result<(), RedirectError>) -> Result<(), ChangeError> {
        match &outcome {
            Ok(()) => self.publishing = Publishing::Done,
            Err(error) if error.is_refusal() => {}
            Err(_) => self.publishing = Publishing::Failed,
        }
        outcome.map_err(datapath_error)
    }

    fn no_rule(&self, name: &str) -> ChangeError {
        let there = self.engine.rules().keys().map(ToString::to_string).collect();
        ChangeError::NoRule { name: name.to_owned(), there }
    }

    fn no_backend(&self, target: &Target) -> ChangeError {
        match self.engine.rules().get(&target.rule) {
            None => self.no_rule(&target.rule),
            Some(rule) => ChangeError::NoBackend {
                rule: target.rule.to_string(),
                backend: AddressText(target.backend).to_string(),
                there: rule.backends.iter().map(|it| AddressText(it.address).to_string()).collect(),
            },
        }
    }
}

/// Rules of commands stay; those of the old file give way to those of the new one.
pub fn merged(rules: &RuleSet, sources: &Sources, file: &RuleSet) -> (RuleSet, Sources) {
    let is_commanded = |name: &Arc<str>| sources.get(name) != Some(&Source::File);
    let mut merged: RuleSet = rules
        .iter()
        .filter(|(name, _)| is_commanded(name))
        .map(|(name, rule)| (Arc::clone(name), Arc::clone(rule)))
        .collect();
    let mut from: Sources = merged.keys().map(|name| (Arc::clone(name), Source::Command)).collect();
    for (name, rule) in file {
        merged.insert(Arc::clone(name), Arc::clone(rule));
        from.insert(Arc::clone(name), Source::File);
    }
    (merged, from)
}
