//! Backends that are checked, and what is thought of each.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::{Engine, target};
use crate::redirect::{
    health::{Judge, Outcome, Target, Turn},
    rules::{Check, Rule},
};

impl Engine {
    /// Takes the outcome of a check. `None` if it changes nothing.
    pub fn observe(&mut self, target: &Target, outcome: Outcome) -> Option<Turn> {
        let rule = self.rules.get(&target.rule)?;
        self.judges.get_mut(target)?.observe(outcome, rule.health.rise, rule.health.fall)
    }

    /// What should be checked, and how.
    pub fn targets(&self) -> impl Iterator<Item = (&Target, &Arc<Rule>)> {
        self.judges.keys().filter_map(|target| Some((target, self.rules.get(&target.rule)?)))
    }

    /// Lets a backend take connections that checks have found well. Nothing happens if nobody checks it any more.
    pub fn raise(&mut self, target: &Target) {
        if let Some(judge) = self.judges.get_mut(target) {
            judge.raise();
        }
    }

    /// Notes why a backend that checks have found well takes nothing.
    pub fn refuse(&mut self, target: &Target, reason: String) {
        if let Some(judge) = self.judges.get_mut(target) {
            judge.refuse(reason);
        }
    }

    /// Whether a backend is checked.
    pub fn is_checked(&self, target: &Target) -> bool {
        self.judges.contains_key(target)
    }

    /// What was wrong with the last check of a backend, even if it is still up.
    pub fn trouble(&self, target: &Target) -> Option<&str> {
        self.judges.get(target)?.trouble()
    }

    /// Whoever is checked as before keeps what is thought of it.
    pub(super) fn replace_judges(&mut self, before: Option<&Arc<Rule>>, after: Option<&Arc<Rule>>) {
        let mut known: HashMap<SocketAddr, Judge> = HashMap::new();
        for (rule, backend) in
            before.into_iter().flat_map(|rule| rule.backends.iter().map(move |it| (rule, it)))
        {
            let judge = self.judges.remove(&target(rule, backend));
            known.extend(judge.map(|judge| (backend.address, judge)));
        }
        let Some(after) = after.filter(|rule| rule.health.check != Check::None) else { return };
        let is_same = before.is_some_and(|before| {
            before.health.check == after.health.check && before.health.port == after.health.port
        });
        for backend in &after.backends {
            let was_up = || {
                self.ids_of(after)
                    .filter_map(|id| self.serving.get(&(id, backend.address)))
                    .all(|serving| serving.was_up)
            };
            let judge = known.remove(&backend.address).filter(|_| is_same);
            let judge = judge.unwrap_or_else(|| Judge::new(was_up()));
            self.judges.insert(target(after, backend), judge);
        }
    }
}
