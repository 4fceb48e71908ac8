//! [`Proxy`]: the datapath and what it should do, changed by one thread only.
//!
//! Every change is made on a copy of the wanted state, published, and kept only if the kernel took it. What is wrong with
//! a change is said before anything is touched.

mod change;
mod error;
mod places;

use std::{collections::HashMap, ops::ControlFlow, path::PathBuf, sync::Arc, time::Instant};

use weir_datapath::redirect::{BackendId, Place, Redirect, RedirectError};

pub use self::{change::merged, error::ChangeError};
use super::{
    Source, Sources,
    checks::Checks,
    engine::{Condition, Engine},
    health::{Outcome, Target, Turn},
    resolve::{Services, services_of},
    rules::RuleSet,
    state::{Sockets, State, StateFile},
    text::AddressText,
    watching::Watching,
};
use crate::{causes::with_causes, journal, kubernetes::endpoints::Told};

/// The datapath and what it should do.
pub struct Proxy {
    pub(super) datapath: Redirect,
    /// Its rules are [`Self::written`] with the endpoints of services put in.
    pub(super) engine: Engine,
    pub(super) written: RuleSet,
    pub(super) services: Services,
    pub(super) sources: Sources,
    pub(super) places: Vec<(Place, Source)>,
    sockets: Sockets,
    /// What was said last about sockets that are left alone.
    sockets_trouble: Option<String>,
    state_file: StateFile,
    pub(super) file: Option<PathBuf>,
    pub(super) file_trouble: Option<String>,
    pub(super) trouble: Option<String>,
    pub(super) checks: Checks,
    watching: Watching,
    pub(super) started: Instant,
    is_published: bool,
    is_stopping: bool,
}

/// What a proxy is made of.
pub(super) struct Parts {
    pub(super) datapath: Redirect,
    pub(super) engine: Engine,
    pub(super) written: RuleSet,
    pub(super) services: Services,
    pub(super) sources: Sources,
    pub(super) sockets: Sockets,
    pub(super) state_path: PathBuf,
    pub(super) file: Option<PathBuf>,
    pub(super) checks: Checks,
    pub(super) watching: Watching,
}

impl Proxy {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            datapath,
            engine,
            written,
            services,
            sources,
            sockets,
            state_path,
            file,
            checks,
            watching,
        } = parts;
        Self {
            datapath,
            engine,
            written,
            services,
            sources,
            places: Vec::new(),
            sockets,
            sockets_trouble: None,
            state_file: StateFile::new(&state_path),
            file,
            file_trouble: None,
            trouble: None,
            checks,
            watching,
            started: Instant::now(),
            is_published: true,
            is_stopping: false,
        }
    }

    /// Publishes what the engine wants, whatever was before, and attaches to all of these places.
    pub(super) fn begin(&mut self, places: Vec<(Place, Source)>) -> Result<(), ChangeError> {
        self.check_places(&places)?;
        let desired = self.engine.desired();
        self.datapath.publish(&desired).map_err(error::datapath_error)?;
        self.settle_places(places)?;
        self.follow();
        self.tell_sockets();
        self.save();
        Ok(())
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

    /// Takes where services of a namespace lead now.
    pub(super) fn endpoints(&mut self, namespace: &Arc<str>, told: Told) {
        if !self.services.take_in(namespace, told) {
            return;
        }
        journal::debug(format_args!("endpoints of services in {namespace} have changed"));
        // What a task told before it ended may be of no rule any more.
        self.services.keep(&services_of(&self.written));
        self.engine.replace(self.services.expand(&self.written), Instant::now());
        self.checks.set(&self.engine);
        self.is_published = false;
        self.save();
    }

    /// Checks backends and follows services of the rules as they are now.
    fn follow(&mut self) {
        let wanted = services_of(&self.written);
        self.services.keep(&wanted);
        self.watching.set(&wanted);
        self.checks.set(&self.engine);
    }

    /// Once a second: forgets connections that timed out, and lets what was removed come to its end.
    pub(super) fn tick(&mut self, now: Instant) {
        let expired = self.datapath.expire().map(drop);
        self.note("cannot look through the connections", expired);
        let looked = self.datapath.refresh_local().map(|is_anew| {
            if is_anew {
                journal::info("attached to the cgroup again, which was made anew");
            }
        });
        self.note("cannot look after sockets", looked);
        self.tell_sockets();
        if !self.engine.has_leaving() {
            return;
        }
        let live = self.live();
        match live {
            Ok(live) => {
                self.note("cannot count connections", Ok(()));
                let count = |id: BackendId| live.get(&id).copied().unwrap_or(0);
                if self.engine.tick(now, count) {
                    self.is_published = false;
                }
            }
            Err(error) => self.note("cannot count connections", Err(error)),
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

    fn save(&mut self) {
        let state = State {
            places: self.places.clone(),
            sockets: self.sockets.clone(),
            kubeconfig: self.watching.kubeconfig().cloned(),
            services: self.services.known().clone(),
            rules: self.written.clone(),
            sources: self.sources.clone(),
            orders: self.engine.orders().clone(),
        };
        if let Err(error) = self.state_file.write(&state) {
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

/// A condition in a word.
pub(super) fn condition_text(condition: &Condition) -> &'static str {
    match condition {
        Condition::Up => "up",
        Condition::Weightless => "idle",
        Condition::Draining => "draining",
        Condition::Down(_) => "down",
    }
}
