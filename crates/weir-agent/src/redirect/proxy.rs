//! [`Proxy`]: the datapath and what it should do, changed by one thread only.
//!
//! Every change is made on a copy of the wanted state, published, and kept only if the kernel took it; so are news of
//! endpoints and of backends that are well again ([`news`]). What is wrong with a change is said before anything is touched.

mod change;
mod error;
mod news;
mod places;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use weir_datapath::redirect::{BackendId, Desired, Place, Redirect, RedirectError};

use self::news::{News, Waiting, take_in};
pub use self::{change::merged, error::ChangeError};
use super::{
    Source, Sources,
    checks::Checks,
    engine::{Condition, Engine, in_effect},
    health::{Outcome, Target, Turn},
    resolve::{Services, services_of},
    rules::{RuleSet, unlike},
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
    /// What else is wrong, by what it is about.
    troubles: BTreeMap<&'static str, String>,
    pub(super) checks: Checks,
    watching: Watching,
    pub(super) started: Instant,
    publishing: Publishing,
    /// What was heard and is not in effect.
    waiting: Waiting,
    /// Whether anything was published that may have made room.
    has_changed: bool,
    is_stopping: bool,
}

/// Whether the kernel has what the engine wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publishing {
    /// It has.
    Done,
    /// Something has changed.
    Due,
    /// It did not work, and is tried again at the next tick.
    Failed,
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
            troubles: BTreeMap::new(),
            checks,
            watching,
            started: Instant::now(),
            publishing: Publishing::Done,
            waiting: Waiting::default(),
            has_changed: false,
            is_stopping: false,
        }
    }

    /// Publishes what the engine wants, whatever was before, and attaches to all of these places.
    pub(super) fn begin(&mut self, places: Vec<(Place, Source)>) -> Result<(), ChangeError> {
        self.check_places(&places)?;
        self.publish_first().map_err(error::datapath_error)?;
        self.settle_places(places)?;
        self.follow();
        self.tell_sockets();
        self.save();
        Ok(())
    }

    /// Publishes for the first time. Endpoints that were known before and do not fit are no reason not to start.
    fn publish_first(&mut self) -> Result<(), RedirectError> {
        let published = self.datapath.published()?;
        let outcome = self.publish_engine();
        let has_services = !services_of(&self.written).is_empty();
        if !matches!(&outcome, Err(error) if error.is_refusal() && has_services) {
            return outcome;
        }
        let mut rules = self.written.clone();
        rules.extend(in_effect(&published, &self.written));
        self.engine = Engine::resume(&published, rules, self.engine.orders().clone());
        self.publish_engine()?;
        self.look_at_endpoints();
        self.publish_if_needed();
        Ok(())
    }

    /// Takes what a check found.
    pub(super) fn observed(&mut self, target: &Target, outcome: Outcome) {
        if outcome.is_err() {
            self.waiting.is_not_up(target);
        }
        match self.engine.observe(target, outcome) {
            Some(Turn::Up) => self.waiting.is_up(target),
            Some(Turn::Down) => {
                let (rule, backend) = (&target.rule, AddressText(target.backend));
                let trouble = self.engine.trouble(target).unwrap_or_default();
                journal::warn(format_args!("rule {rule}: backend {backend} is down: {trouble}"));
                self.has_to_publish();
            }
            None => {}
        }
    }

    /// Takes where services of a namespace lead now.
    pub(super) fn endpoints(&mut self, namespace: &Arc<str>, told: Told) {
        if !self.services.take_in(namespace, told) {
            return;
        }
        journal::debug(format_args!("endpoints of services in {namespace} have changed"));
        // What a task told before it ended may be of no rule any more.
        self.services.keep(&services_of(&self.written));
        self.look_at_endpoints();
        self.save();
    }

    /// Notes which rules have other endpoints than are in effect.
    fn look_at_endpoints(&mut self) {
        let mut others = Vec::new();
        // Thousands of rules need not be compared where none has any.
        if self.written.values().any(|rule| !rule.services.is_empty()) {
            let now = self.services.expand_changed(&self.written, self.engine.rules());
            let changed = unlike(self.engine.rules(), &now);
            others.extend(changed.into_iter().filter_map(|(_, after)| after.cloned()));
        }
        self.waiting.have_endpoints(others);
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
        if self.publishing == Publishing::Failed {
            self.publishing = Publishing::Due;
        }
        if mem::take(&mut self.has_changed) {
            self.waiting.try_again();
        }
        if !self.engine.has_leaving() {
            return;
        }
        let live = self.live();
        match live {
            Ok(live) => {
                self.note("cannot count connections", Ok::<_, RedirectError>(()));
                let count = |id: BackendId| live.get(&id).copied().unwrap_or(0);
                if self.engine.tick(now, count) {
                    self.has_to_publish();
                }
            }
            Err(error) => self.note("cannot count connections", Err(error)),
        }
    }

    /// Something has changed. Where publishing does not work, that waits for the next tick as well.
    fn has_to_publish(&mut self) {
        if self.publishing == Publishing::Done {
            self.publishing = Publishing::Due;
        }
    }

    /// Publishes what checks, services and time have changed. What fails is tried again at the next tick, what does not fit
    /// once there may be room for it.
    pub(super) fn publish_if_needed(&mut self) {
        let is_due = self.publishing == Publishing::Due || self.waiting.is_due();
        if !is_due || self.publishing == Publishing::Failed {
            return;
        }
        let news = self.waiting.due();
        let (datapath, has_changed) = (&mut self.datapath, &mut self.has_changed);
        let mut publish = |desired: &Desired| publish(datapath, has_changed, desired);
        let outcome = take_in(&mut self.engine, &news, Instant::now(), &mut publish);
        let outcome = outcome.map(|refused| self.settle_news(&news, &refused));
        self.publishing = if outcome.is_ok() { Publishing::Done } else { Publishing::Failed };
        self.note("cannot publish", outcome);
    }

    /// These were tried: says what is in effect now, and what does not fit.
    fn settle_news(&mut self, tried: &[News], refused: &[(News, RedirectError)]) {
        for (news, error) in refused {
            let trouble = with_causes(error);
            if self.waiting.refused(news, error) {
                journal::error(format_args!("{news}: {trouble}"));
            }
            if let News::Up(target) = news {
                self.engine.refuse(target, trouble);
            }
        }
        let is_refused = |news: &News| refused.iter().any(|(other, _)| other == news);
        for news in tried.iter().filter(|news| !is_refused(news)) {
            self.waiting.took(news);
            if let News::Up(Target { rule, backend }) = news {
                journal::info(format_args!("rule {rule}: backend {} is up", AddressText(*backend)));
            }
        }
        if tried.iter().any(|news| matches!(news, News::Endpoints(_))) {
            self.checks.set(&self.engine);
        }
        self.tell_services();
    }

    /// Tells where services lead why that is not in effect.
    fn tell_services(&mut self) {
        let refused = self.waiting.troubles().filter_map(|(news, reason)| match news {
            News::Endpoints(rule) => Some((Arc::clone(&rule.name), reason.to_owned())),
            News::Up(_) => None,
        });
        self.services.refuse(refused.collect());
    }

    /// Publishes what the engine wants.
    fn publish_engine(&mut self) -> Result<(), RedirectError> {
        publish(&mut self.datapath, &mut self.has_changed, &self.engine.desired())
    }

    /// What is wrong, in one line.
    pub(super) fn trouble(&self) -> Option<String> {
        let refused = self.waiting.troubles().map(|(news, reason)| format!("{news}: {reason}"));
        let troubles: Vec<String> = self.troubles.values().cloned().chain(refused).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
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
        // The rules are lent, not copied: there are thousands of them.
        let state = State {
            places: self.places.clone(),
            sockets: self.sockets.clone(),
            kubeconfig: self.watching.kubeconfig().cloned(),
            services: self.services.known().clone(),
            rules: mem::take(&mut self.written),
            sources: mem::take(&mut self.sources),
            orders: self.engine.orders().clone(),
        };
        let outcome = self.state_file.write(&state);
        State { rules: self.written, sources: self.sources, .. } = state;
        self.note("a restart would not know this", outcome);
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
    fn note(&mut self, what: &'static str, outcome: Result<(), impl std::error::Error + 'static>) {
        match outcome {
            Ok(()) => {
                self.troubles.remove(what);
            }
            Err(error) => {
                let trouble = format!("{what}: {}", with_causes(&error));
                if self.troubles.get(what) != Some(&trouble) {
                    journal::error(&trouble);
                }
                self.troubles.insert(what, trouble);
            }
        }
    }
}

/// Publishes, and notes whether that changed anything.
fn publish(datapath: &mut Redirect, has_changed: &mut bool, desired: &Desired) -> Result<(), RedirectError> {
    let published = datapath.publish(desired)?;
    *has_changed |= published.rules_changed + published.backends_changed > 0;
    Ok(())
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
