//! [`Proxy`]: the datapath and what it should do, changed by one thread only.
//!
//! Every change is made on a copy of the wanted state, published, and kept only if the kernel took it. What is wrong with
//! a change is said before anything is touched.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use serde_json::{Value, json};
use thiserror::Error;
use weir_api::proxy::{Change, ChangeAnswer};
use weir_datapath::redirect::{BackendId, Place, PlaceChange, PlaceState, Redirect, RedirectError};

use super::{
    Source, Sources,
    checks::Checks,
    diff::diff,
    engine::{Condition, Engine},
    health::{Outcome, Target, Turn},
    rules::{RuleSet, Rules, judge_set},
    state::{Sockets, State, place_text},
    text::AddressText,
};
use crate::{causes::with_causes, config::Problems, journal};

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The rules are wrong.
    #[error("{0}")]
    Rules(Problems),
    /// There is no such rule.
    #[error("no rule is called `{name}`{}", known(.there))]
    NoRule {
        /// What was asked for.
        name: String,
        /// The rules that there are.
        there: Vec<String>,
    },
    /// The rule has no such backend.
    #[error("rule {rule} has no backend {backend}: it has {}", .there.join(", "))]
    NoBackend {
        /// The rule.
        rule: String,
        /// What was asked for.
        backend: String,
        /// The backends that there are.
        there: Vec<String>,
    },
    /// The file drains it, so a command cannot undo that.
    #[error("the rules file drains {0}: change it there")]
    DrainedByFile(String),
    /// The kernel did not take it.
    #[error("the kernel did not take the change, so everything is as before")]
    Datapath(#[source] Box<RedirectError>),
    /// An interface cannot be used.
    #[error("cannot use the interface {name}")]
    Interface {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<RedirectError>,
    },
}

fn known(there: &[String]) -> String {
    match there {
        [] => ": there is none".to_owned(),
        some if some.len() > 12 => String::new(),
        some => format!(": there are {}", some.join(", ")),
    }
}

impl ChangeError {
    /// Whether it is the request that is wrong, not the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Datapath(_) => false,
            Self::Interface { source, .. } => matches!(**source, RedirectError::UnknownInterface(_)),
            _ => true,
        }
    }
}

fn datapath_error(error: RedirectError) -> ChangeError {
    ChangeError::Datapath(Box::new(error))
}

/// What is wrong with an interface.
fn interface_error(name: &str) -> impl FnOnce(RedirectError) -> ChangeError {
    move |source| ChangeError::Interface { name: name.to_owned(), source: Box::new(source) }
}

/// The datapath and what it should do.
pub struct Proxy {
    pub(super) datapath: Redirect,
    pub(super) engine: Engine,
    pub(super) sources: Sources,
    pub(super) places: Vec<(Place, Source)>,
    sockets: Sockets,
    /// What was said last about sockets that are left alone.
    sockets_trouble: Option<String>,
    pub(super) state_path: PathBuf,
    pub(super) file: Option<PathBuf>,
    pub(super) file_trouble: Option<String>,
    pub(super) trouble: Option<String>,
    pub(super) checks: Checks,
    pub(super) started: Instant,
    is_published: bool,
    is_stopping: bool,
}

/// What a proxy is made of.
pub(super) struct Parts {
    pub(super) datapath: Redirect,
    pub(super) engine: Engine,
    pub(super) sources: Sources,
    pub(super) sockets: Sockets,
    pub(super) state_path: PathBuf,
    pub(super) file: Option<PathBuf>,
    pub(super) checks: Checks,
}

impl Proxy {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { datapath, engine, sources, sockets, state_path, file, checks } = parts;
        Self {
            datapath,
            engine,
            sources,
            places: Vec::new(),
            sockets,
            sockets_trouble: None,
            state_path,
            file,
            file_trouble: None,
            trouble: None,
            checks,
            started: Instant::now(),
            is_published: true,
            is_stopping: false,
        }
    }

    /// Publishes what the engine wants, whatever was before, and attaches to all of these places.
    pub(super) fn begin(&mut self, places: Vec<(Place, Source)>) -> Result<(), ChangeError> {
        self.check_places(&places)?;
        let desired = self.engine.desired();
        self.datapath.publish(&desired).map_err(datapath_error)?;
        self.settle_places(places)?;
        self.checks.set(&self.engine);
        self.tell_sockets();
        self.save();
        Ok(())
    }

    /// Makes the rules of commands and file those of this file.
    pub fn apply(&mut self, wanted: Rules, dry_run: bool) -> Result<ChangeAnswer, ChangeError> {
        let (rules, sources) = merged(self.engine.rules(), &self.sources, &wanted.rules);
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
        let (mut rules, mut sources) = (self.engine.rules().clone(), self.sources.clone());
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
        if !self.engine.rules().contains_key(name) {
            return Err(self.no_rule(name));
        }
        let (mut rules, mut sources) = (self.engine.rules().clone(), self.sources.clone());
        rules.remove(name);
        let was_in_file = sources.remove(name) == Some(Source::File);
        let mut answer = self.change(rules, sources, false)?;
        if ends_now {
            self.engine.end_leaving(Instant::now());
            self.is_published = false;
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

    /// Takes what a check found.
    pub(super) fn observed(&mut self, target: &Target, outcome: Outcome) {
        let Some(turn) = self.engine.observe(target, outcome) else { return };
        let (rule, backend) = (&target.rule, AddressText(target.backend));
        match turn {
            Turn::Up => journal::info(format_args!("rule {rule}: backend {backend} is up")),
            Turn::Down => {
                let trouble = self.engine.trouble(target).unwrap_or_default();
                journal::warn(format_args!("rule {rule}: backend {backend} is down: {trouble}"));
            }
        }
        self.is_published = false;
    }

    /// Reads the rules file again. What is wrong with it is said, and nothing changes.
    pub(super) fn reload(&mut self, text: Result<String, String>) {
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

    /// Once a second: forgets connections that timed out, and lets what was removed come to its end.
    pub(super) fn tick(&mut self, now: Instant) {
        let expired = self.datapath.expire().map(drop);
        self.note("cannot look through the connections", expired);
        match self.datapath.refresh_local() {
            Ok(true) => journal::info("attached to the cgroup again, which was made anew"),
            Ok(false) => {}
            Err(error) => self.note("cannot look after sockets", Err(error)),
        }
        self.tell_sockets();
        if !self.engine.has_leaving() {
            return;
        }
        match self.live() {
            Ok(live) => {
                let count = |id: BackendId| live.get(&id).copied().unwrap_or(0);
                if self.engine.tick(now, count) {
                    self.is_published = false;
                }
            }
            Err(error) => self.note("cannot count connections", Err(error)),
        }
    }

    /// Interfaces have changed.
    pub(super) fn refresh(&mut self) {
        match self.datapath.refresh() {
            Ok(changes) => changes.into_iter().for_each(|change| match change {
                PlaceChange::Gone { interface } => {
                    journal::warn(format_args!("{interface} is gone; it is attached again when it comes"));
                }
                PlaceChange::Attached { interface, .. } => {
                    journal::info(format_args!("attached to {interface}"));
                }
                PlaceChange::Failed { interface, error } => {
                    let error = with_causes(&error);
                    journal::error(format_args!("cannot attach to {interface}: {error}"));
                }
            }),
            Err(error) => self.note("cannot look after interfaces", Err(error)),
        }
    }

    /// Publishes what checks and time have changed. What fails is tried again at the next tick.
    pub(super) fn publish_if_needed(&mut self) {
        if self.is_published {
            return;
        }
        let desired = self.engine.desired();
        let outcome = self.datapath.publish(&desired).map(drop);
        self.is_published = outcome.is_ok();
        self.note("cannot publish", outcome);
    }

    /// Asks the main loop to end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Connections of each backend, counted now.
    pub fn live(&self) -> Result<HashMap<BackendId, u64>, RedirectError> {
        live(&self.datapath)
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
        judge_set(&rules).map_err(ChangeError::Rules)?;
        let diff = diff(self.engine.rules(), &rules);
        if dry_run {
            return Ok(ChangeAnswer { diff, is_applied: false, notes: Vec::new() });
        }
        let mut next = self.engine.clone();
        next.replace(rules, Instant::now());
        self.keep(next)?;
        self.sources = sources;
        self.checks.set(&self.engine);
        self.save();
        Ok(ChangeAnswer { diff, is_applied: true, notes: Vec::new() })
    }

    fn order(&mut self, order: impl FnOnce(&mut Engine) -> bool) -> Result<(), ChangeError> {
        let mut next = self.engine.clone();
        order(&mut next);
        self.keep(next)?;
        self.save();
        Ok(())
    }

    /// Publishes; only then it counts. What an error left behind half done is published again as it was before.
    fn keep(&mut self, mut next: Engine) -> Result<(), ChangeError> {
        self.datapath.publish(&next.desired()).map_err(|error| {
            self.is_published = false;
            datapath_error(error)
        })?;
        self.engine = next;
        self.is_published = true;
        Ok(())
    }

    /// Makes sure, before anything is changed, that every interface is there, or was and may come back.
    fn check_places(&self, places: &[(Place, Source)]) -> Result<(), ChangeError> {
        let attached = self.datapath.places();
        for (place, _) in places {
            if !attached.iter().any(|known| known.interface == place.interface) {
                self.datapath.find(&place.interface).map_err(interface_error(&place.interface))?;
            }
        }
        Ok(())
    }

    /// Attaches to what is new and takes the programs off what is gone. The first that fails ends it.
    fn settle_places(&mut self, places: Vec<(Place, Source)>) -> Result<(), ChangeError> {
        let attached: BTreeMap<String, PlaceState> =
            self.datapath.places().into_iter().map(|place| (place.interface.clone(), place)).collect();
        for (place, _) in &places {
            let known = attached.get(&place.interface);
            if known.is_none_or(|known| known.role != place.role || !known.is_alive) {
                match self.datapath.attach(place) {
                    Ok(_) => journal::info(format_args!("attached to {}", place_text(place))),
                    // It was there before, so it will be again.
                    Err(RedirectError::UnknownInterface(name)) if known.is_some() => {
                        journal::warn(format_args!("{name} is gone; it is attached again when it comes"));
                    }
                    Err(error) => return Err(interface_error(&place.interface)(error)),
                }
            }
        }
        for interface in attached.keys() {
            if !places.iter().any(|(place, _)| place.interface == *interface) {
                self.datapath.detach(interface).map_err(interface_error(interface))?;
                journal::info(format_args!("detached from {interface}"));
            }
        }
        self.places = places;
        Ok(())
    }

    fn save(&mut self) {
        let outcome =
            State::of(&self.engine, &self.sources, &self.places, &self.sockets).write(&self.state_path);
        if let Err(error) = outcome {
            journal::error(format_args!("a restart would not know this: {}", with_causes(&error)));
            self.trouble = Some(with_causes(&error));
        }
    }

    /// Says why sockets are left alone though they should not be, once.
    fn tell_sockets(&mut self) {
        let trouble = self.datapath.local_trouble().map(|error| with_causes(error));
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.sockets_trouble) {
            journal::warn(format_args!("sockets of this machine are left alone: {trouble}"));
        }
        self.sockets_trouble = trouble;
    }

    /// Remembers what is wrong until it works again, and says it when it begins.
    fn note(&mut self, what: &str, outcome: Result<(), RedirectError>) {
        match outcome {
            Ok(()) => {
                if self.trouble.as_ref().is_some_and(|trouble| trouble.starts_with(what)) {
                    self.trouble = None;
                }
            }
            Err(error) => {
                let trouble = format!("{what}: {}", with_causes(&error));
                if self.trouble.as_ref() != Some(&trouble) {
                    journal::error(&trouble);
                }
                self.trouble = Some(trouble);
            }
        }
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

/// Connections of each backend, counted now.
pub(super) fn live(datapath: &Redirect) -> Result<HashMap<BackendId, u64>, RedirectError> {
    let mut live = HashMap::new();
    datapath.connections(&mut |connection| {
        *live.entry(connection.backend).or_insert(0) += 1;
        ControlFlow::Continue(())
    })?;
    Ok(live)
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

fn places_notes(old: &[(Place, Source)], new: &[(Place, Source)]) -> Vec<String> {
    let without = |list: &[(Place, Source)], others: &[(Place, Source)]| -> Vec<String> {
        let is_other = |place: &Place| !others.iter().any(|(other, _)| other == place);
        list.iter().filter(|(place, _)| is_other(place)).map(|(place, _)| place_text(place)).collect()
    };
    let removed = without(old, new).into_iter().map(|text| format!("- interface {text}"));
    removed.chain(without(new, old).into_iter().map(|text| format!("+ interface {text}"))).collect()
}

/// A condition in a word.
pub(super) fn condition_text(condition: &Condition) -> &'static str {
    match condition {
        Condition::Up => "up",
        Condition::Weightless => "idle",
        Condition::Draining => "draining",
        Condition::Down(_) => "down",
    }
}
