//! The wanted state: rules, what commands and health checks say of them, and what still has to come to its end.
//!
//! A pure state machine. Time and numbers of connections are arguments; [`Engine::desired`] says what the kernel should
//! have. It is cheap to clone, so that a change is tried on a copy, published, and kept only if that worked.
//!
//! What is removed does not vanish: TCP connections go on for the rule's `drain_timeout`, then they are reset. Meanwhile
//! a removed rule stays, without backends to choose and out of the way of new connections. UDP has no end that could be
//! waited for, so its senders get another backend at once.

mod checked;
mod ids;
mod recover;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_datapath::redirect::{
    BackendId, BackendState, Desired, Listener, OnEmpty, RuleId, RuleState, Standing, Transport,
};

use self::ids::Ids;
pub use self::recover::{in_effect, recovered};
use super::{
    health::{Judge, Target},
    maglev,
    overlap::Listeners,
    rules::{Backend, Rule, RuleSet, unlike},
};

/// Time after which nothing should be left of a backend whose connections were ended.
const ENDED: Duration = Duration::from_mins(1);

/// Time for which a removed backend stays even without connections: what was on its way when it was removed arrives.
const SETTLED: Duration = Duration::from_secs(2);

/// The state machine.
#[derive(Clone, Debug)]
pub struct Engine {
    rules: RuleSet,
    orders: Orders,
    judges: BTreeMap<Target, Judge>,
    listening: BTreeMap<RuleId, Listening>,
    by_listener: HashMap<Listener, RuleId>,
    /// Listeners that belong to a rule.
    owned: Listeners<()>,
    serving: BTreeMap<(RuleId, SocketAddr), Serving>,
    ids: Ids,
}

/// What commands said, which outlives changes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Rules that take nothing new.
    pub drained_rules: BTreeSet<Arc<str>>,
    /// Backends that take nothing new.
    pub drained: BTreeSet<Target>,
    /// Weights in place of those of the file.
    pub weights: BTreeMap<Target, u16>,
}

/// A listener that the kernel knows.
#[derive(Clone, Debug)]
struct Listening {
    /// Whose it is; nobody's if it is leaving.
    owner: Option<Arc<Rule>>,
    /// Its settings, and the table of those who share its new connections.
    state: RuleState,
    /// These, with their weights.
    members: Arc<[Member]>,
}

/// Who shares new connections, where it is, and its weight.
type Member = (BackendId, SocketAddr, u16);

/// A backend that the kernel knows.
#[derive(Clone, Debug)]
struct Serving {
    id: BackendId,
    /// Since when it belongs to no rule.
    left: Option<Instant>,
    /// When its connections were ended.
    ended: Option<Instant>,
    /// How long they may go on.
    drain_timeout: Duration,
    /// Whether it could take connections when the control process found it, if it was there before.
    was_up: bool,
}

/// How a backend is doing, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It takes new connections.
    Up,
    /// Its weight is 0.
    Weightless,
    /// It, or the whole rule, was told to take no more.
    Draining,
    /// Its checks fail, because of this.
    Down(String),
}

impl Serving {
    /// What becomes of one that no rule has any more.
    const fn standing_without_rule(&self) -> Standing {
        if self.ended.is_some() { Standing::Gone } else { Standing::Draining }
    }
}

impl Listening {
    /// Nobody owns it yet, and nobody shares its new connections.
    fn new(state: &RuleState) -> Self {
        Self { owner: None, state: RuleState { table: [].into(), ..state.clone() }, members: [].into() }
    }

    /// Makes the table anew if others share it, or otherwise than before.
    fn share(&mut self, members: &[Member]) {
        if *self.members == *members {
            return;
        }
        let weights: Vec<(SocketAddr, u16)> =
            members.iter().map(|(_, address, weight)| (*address, *weight)).collect();
        let places = maglev::table(&weights).into_iter().map(|position| members[position].0);
        (self.state.table, self.members) = (places.collect(), members.into());
    }
}

impl Engine {
    /// Begins with what the kernel has. All of it is leaving until [`Self::replace`] says otherwise.
    pub fn new(published: &Desired) -> Self {
        let mut engine = Self {
            rules: RuleSet::new(),
            orders: Orders::default(),
            judges: BTreeMap::new(),
            listening: BTreeMap::new(),
            by_listener: HashMap::new(),
            owned: Listeners::default(),
            serving: BTreeMap::new(),
            ids: Ids::default(),
        };
        for rule in &published.rules {
            engine.ids.take_rule(rule.id);
            engine.by_listener.insert(rule.listener, rule.id);
            engine.listening.insert(rule.id, Listening::new(rule));
        }
        for backend in &published.backends {
            engine.ids.take_backend(backend.id);
            engine.ids.take_rule(backend.rule);
            let serving = Serving {
                id: backend.id,
                left: None,
                ended: None,
                drain_timeout: Duration::ZERO,
                was_up: backend.standing == Standing::Up,
            };
            engine.serving.insert((backend.rule, backend.address), serving);
        }
        engine
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Listeners that belong to a rule.
    pub(super) fn owned(&self) -> &Listeners<()> {
        &self.owned
    }

    /// What commands said.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Begins with what the kernel has, with these rules, and with what commands said before.
    pub fn resume(published: &Desired, rules: RuleSet, orders: Orders) -> Self {
        let mut engine = Self::new(published);
        engine.replace(rules, Instant::now());
        engine.restore(orders);
        engine
    }

    /// Takes over what commands said before a restart. What it says of backends that are no more is left out.
    pub fn restore(&mut self, orders: Orders) {
        self.orders = orders;
        self.forget_orders();
    }

    /// From now on these are the rules. Costs as much as is not the same memory as before.
    pub fn replace(&mut self, rules: RuleSet, now: Instant) {
        let old = std::mem::replace(&mut self.rules, rules);
        let new = self.rules.clone();
        let changed = unlike(&old, &new);
        for before in changed.iter().filter_map(|(before, _)| *before) {
            self.leave(before, now);
        }
        for after in changed.iter().filter_map(|(_, after)| *after) {
            self.come(after);
        }
        if old.is_empty() {
            self.leave_unowned(now);
        }
        for (before, after) in changed {
            self.replace_judges(before, after);
            let (Some(before), Some(after)) = (before, after) else { continue };
            for backend in &after.backends {
                // A weight that the file changed is the last word.
                let weight = weight_in(before, backend.address);
                if weight.is_some_and(|weight| weight != backend.weight) {
                    self.orders.weights.remove(&target(after, backend));
                }
            }
        }
        self.serving.values_mut().for_each(|serving| serving.was_up = true);
        self.forget_orders();
    }

    /// What is of this rule is nobody's.
    fn leave(&mut self, rule: &Rule, now: Instant) {
        for id in rule.listeners.iter().filter_map(|listener| self.by_listener.get(listener)) {
            if let Some(listening) = self.listening.get_mut(id) {
                listening.owner = None;
                self.owned.remove(&listening.state.listener);
            }
            for backend in &rule.backends {
                if let Some(serving) = self.serving.get_mut(&(*id, backend.address)) {
                    serving.left.get_or_insert(now);
                }
            }
        }
    }

    /// What is of this rule is there, or there again.
    fn come(&mut self, rule: &Arc<Rule>) {
        for listener in &rule.listeners {
            let id = *self.by_listener.entry(*listener).or_insert_with(|| self.ids.rule());
            let state = settings(id, *listener, rule);
            let listening = self.listening.entry(id).or_insert_with(|| Listening::new(&state));
            let table = Arc::clone(&listening.state.table);
            (listening.owner, listening.state) = (Some(Arc::clone(rule)), RuleState { table, ..state });
            self.owned.add(*listener, ());
            for backend in &rule.backends {
                let ids = &mut self.ids;
                let serving = self.serving.entry((id, backend.address)).or_insert_with(|| Serving {
                    id: ids.backend(),
                    left: None,
                    ended: None,
                    drain_timeout: rule.drain_timeout,
                    was_up: true,
                });
                (serving.left, serving.ended) = (None, None);
                serving.drain_timeout = rule.drain_timeout;
            }
        }
    }

    /// What the kernel had, and no rule has.
    fn leave_unowned(&mut self, now: Instant) {
        let listening = &self.listening;
        for ((id, address), serving) in &mut self.serving {
            let owner = listening.get(id).and_then(|listening| listening.owner.as_ref());
            if owner.is_none_or(|rule| weight_in(rule, *address).is_none()) {
                serving.left.get_or_insert(now);
            }
        }
    }

    /// Lets a rule take new connections or not. `false` if there is no such rule.
    pub fn drain_rule(&mut self, name: &str, is_drained: bool) -> bool {
        let Some(rule) = self.rules.get(name) else { return false };
        let name = Arc::clone(&rule.name);
        if is_drained {
            self.orders.drained_rules.insert(name)
        } else {
            self.orders.drained_rules.remove(&name)
        };
        true
    }

    /// Lets a backend take new connections or not. `false` if there is no such backend.
    pub fn drain(&mut self, target: &Target, is_drained: bool) -> bool {
        let is_known = self.backend(target).is_some();
        if is_known && is_drained {
            self.orders.drained.insert(target.clone());
        } else if is_known {
            self.orders.drained.remove(target);
        }
        is_known
    }

    /// Gives a backend another weight than the file does. `false` if there is no such backend.
    pub fn weigh(&mut self, target: &Target, weight: u16) -> bool {
        let Some(backend) = self.backend(target) else { return false };
        if backend.weight == weight {
            self.orders.weights.remove(target);
        } else {
            self.orders.weights.insert(target.clone(), weight);
        }
        true
    }

    /// The backend as the file has it.
    pub fn backend(&self, target: &Target) -> Option<&Backend> {
        self.rules.get(&target.rule)?.backends.iter().find(|backend| backend.address == target.backend)
    }

    /// The weight that counts.
    pub fn weight(&self, rule: &Rule, backend: &Backend) -> u16 {
        self.orders.weights.get(&target(rule, backend)).copied().unwrap_or(backend.weight)
    }

    /// How a backend is doing.
    pub fn condition(&self, rule: &Rule, backend: &Backend) -> Condition {
        let target = target(rule, backend);
        let is_drained = rule.is_drained
            || backend.is_drained
            || self.orders.drained_rules.contains(&rule.name)
            || self.orders.drained.contains(&target);
        match self.judges.get(&target) {
            _ if is_drained => Condition::Draining,
            Some(judge) if !judge.is_up() => Condition::Down(judge.trouble().unwrap_or_default().to_owned()),
            _ if self.weight(rule, backend) == 0 => Condition::Weightless,
            _ => Condition::Up,
        }
    }

    /// The rule that listens there under this number; `None` if it is leaving or unknown.
    pub fn owner(&self, id: RuleId) -> Option<&Arc<str>> {
        self.listening.get(&id)?.owner.as_ref().map(|rule| &rule.name)
    }

    /// The numbers of a rule, one for each listener.
    pub fn ids_of(&self, rule: &Rule) -> impl Iterator<Item = RuleId> {
        rule.listeners.iter().filter_map(|listener| self.by_listener.get(listener).copied())
    }

    /// The number of a backend at one of the listeners.
    pub fn backend_id(&self, rule: RuleId, address: SocketAddr) -> Option<BackendId> {
        self.serving.get(&(rule, address)).map(|serving| serving.id)
    }

    /// Whether anything still has to come to its end.
    pub fn has_leaving(&self) -> bool {
        self.serving.values().any(|serving| serving.left.is_some())
            || self.listening.values().any(|listening| listening.owner.is_none())
    }

    /// The listener of this number.
    pub fn listener(&self, id: RuleId) -> Option<Listener> {
        self.listening.get(&id).map(|listening| listening.state.listener)
    }

    /// Backends that belong to no rule any more: at which listener they were, and since when.
    pub fn leaving(&self) -> impl Iterator<Item = (Listener, SocketAddr, BackendId, Instant)> {
        self.serving.iter().filter_map(|((rule, address), serving)| {
            let listening = self.listening.get(rule)?;
            Some((listening.state.listener, *address, serving.id, serving.left?))
        })
    }

    /// Lets what was removed come to its end. Returns whether there is something to publish.
    pub fn tick(&mut self, now: Instant, connections: impl Fn(BackendId) -> u64) -> bool {
        let mut has_changed = false;
        let listening = &self.listening;
        let ids = &mut self.ids;
        self.serving.retain(|(rule, _), serving| {
            let Some(left) = serving.left else { return true };
            let away = now.saturating_duration_since(left);
            let is_unused = connections(serving.id) == 0 && away >= SETTLED;
            let is_udp = listening.get(rule).is_none_or(|it| it.state.listener.transport == Transport::Udp);
            if serving.ended.is_none() && (away >= serving.drain_timeout || is_udp) {
                serving.ended = Some(now);
                has_changed = true;
            }
            let is_over = serving.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= ENDED);
            if is_unused || is_over {
                ids.free_backend(serving.id);
                has_changed = true;
            }
            !(is_unused || is_over)
        });
        let (serving, by_listener) = (&self.serving, &mut self.by_listener);
        self.listening.retain(|id, listening| {
            let lowest = SocketAddr::from(([0, 0, 0, 0], 0));
            let has_backends = serving.range((*id, lowest)..).next().is_some_and(|((rule, _), _)| rule == id);
            let stays = listening.owner.is_some() || has_backends;
            if !stays {
                by_listener.remove(&listening.state.listener);
                ids.free_rule(*id);
                has_changed = true;
            }
            stays
        });
        has_changed
    }

    /// Ends at once what belongs to no rule any more.
    pub fn end_leaving(&mut self, now: Instant) {
        for serving in self.serving.values_mut().filter(|serving| serving.left.is_some()) {
            serving.ended.get_or_insert(now);
        }
    }

    /// What the kernel should have.
    pub fn desired(&mut self) -> Desired {
        let mut desired = Desired::default();
        let mut listening = std::mem::take(&mut self.listening);
        // Both are in the order of listeners' numbers.
        let mut serving = self.serving.iter().peekable();
        let mut members = Vec::new();
        let mut add = |((rule, address), serving): (&(RuleId, SocketAddr), &Serving), standing| {
            desired.backends.push(BackendState { id: serving.id, rule: *rule, address: *address, standing });
        };
        for (id, listening) in &mut listening {
            // Where nobody listens any more, whoever is left goes on without anything new.
            while let Some(backend) = serving.next_if(|((rule, _), _)| rule < id) {
                add(backend, backend.1.standing_without_rule());
            }
            members.clear();
            while let Some(backend) = serving.next_if(|((rule, _), _)| rule == id) {
                let ((_, address), serving) = backend;
                let (standing, weight) = self.standing(listening, *address, serving);
                members.extend(weight.map(|weight| (serving.id, *address, weight)));
                add(backend, standing);
            }
            listening.share(&members);
            if listening.owner.is_some() {
                desired.rules.push(listening.state.clone());
            } else if self.owned.overlapping(&listening.state.listener).is_none() {
                // What leaves must not meet what took its place.
                desired.rules.push(RuleState { on_empty: OnEmpty::Pass, ..listening.state.clone() });
            }
        }
        for backend in serving {
            add(backend, backend.1.standing_without_rule());
        }
        self.listening = listening;
        desired
    }

    /// What may become of a backend, and its share of new connections if it has one.
    fn standing(
        &self,
        listening: &Listening,
        address: SocketAddr,
        serving: &Serving,
    ) -> (Standing, Option<u16>) {
        let rule = listening.owner.as_ref();
        let found = rule
            .and_then(|rule| Some((rule, rule.backends.iter().find(|backend| backend.address == address)?)));
        let Some((rule, backend)) = found else { return (serving.standing_without_rule(), None) };
        let condition = self.condition(rule, backend);
        let weight = (condition == Condition::Up).then(|| self.weight(rule, backend));
        let standing = match condition {
            _ if serving.left.is_some() || serving.ended.is_some() => serving.standing_without_rule(),
            Condition::Up | Condition::Weightless => Standing::Up,
            // Nobody hears what is sent to a dead one, and UDP does not notice: its senders get another.
            Condition::Down(_) if listening.state.listener.transport == Transport::Udp => Standing::Gone,
            Condition::Down(_) | Condition::Draining => Standing::Draining,
        };
        (standing, weight)
    }

    fn forget_orders(&mut self) {
        let rules = &self.rules;
        let is_known = |target: &Target| {
            rules.get(&target.rule).is_some_and(|rule| weight_in(rule, target.backend).is_some())
        };
        self.orders.drained_rules.retain(|name| rules.contains_key(name));
        self.orders.drained.retain(&is_known);
        self.orders.weights.retain(|target, _| is_known(target));
    }
}

fn target(rule: &Rule, backend: &Backend) -> Target {
    Target { rule: Arc::clone(&rule.name), backend: backend.address }
}

fn weight_in(rule: &Rule, address: SocketAddr) -> Option<u16> {
    rule.backends.iter().find(|backend| backend.address == address).map(|backend| backend.weight)
}

/// What the kernel knows of a rule besides its backends.
fn settings(id: RuleId, listener: Listener, rule: &Rule) -> RuleState {
    RuleState {
        id,
        listener,
        table: [].into(),
        affinity: rule.affinity,
        on_empty: rule.on_empty,
        on_full: rule.on_full,
        ports: rule.ports,
        timeouts: rule.timeouts,
        new_per_second: rule.new_per_second,
    }
}
