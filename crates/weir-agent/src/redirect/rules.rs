//! Rules that make sense, and what is wrong with those that do not.
//!
//! [`Rules::read`] turns the text of a file into rules whose values cannot be wrong any more, or into every problem that
//! it has, each with its path. Nothing is looked at but the text: interfaces are judged when they are attached to.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use weir_datapath::redirect::{Listener, OnEmpty, OnFull, Place, PortPolicy, Role, Timeouts, Transport};

use super::{
    document::{OnEmptyDocument, OnFullDocument, PortPolicyDocument, RuleDocument, RulesDocument},
    overlap::Listeners,
    service::{ServiceBackends, ServiceText, parse_service},
    text::{self, AddressText, ListenerText},
};
use crate::config::{At, Problems, check_shape, parse_yaml};

/// A rules file that makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Where packets are looked at.
    pub places: Vec<Place>,
    /// Room for connections.
    pub capacity: Option<u32>,
    /// Where to answer `/metrics` besides.
    pub metrics: Option<SocketAddr>,
    /// The rules by name.
    pub rules: RuleSet,
}

/// Rules by name. No two of them listen at the same place.
pub type RuleSet = BTreeMap<Arc<str>, Arc<Rule>>;

/// A rule that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// What clients call; one or more, of one address family.
    pub listeners: Vec<Listener>,
    /// Who answers; of the same family, no two alike.
    pub backends: Vec<Backend>,
    /// Services whose endpoints answer besides.
    pub services: Vec<ServiceBackends>,
    /// How backends are checked.
    pub health: Health,
    /// How long a client keeps its backend.
    pub affinity: Option<Duration>,
    /// Without any backend.
    pub on_empty: OnEmpty,
    /// Without room.
    pub on_full: OnFull,
    /// The client's port.
    pub ports: PortPolicy,
    /// When connections are forgotten.
    pub timeouts: Timeouts,
    /// Most new connections a second.
    pub new_per_second: Option<u32>,
    /// How long connections outlive what they belong to.
    pub drain_timeout: Duration,
    /// Whether it takes no new connections.
    pub is_drained: bool,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where; port 0 keeps the one that the client called.
    pub address: SocketAddr,
    /// Its share, relative to the others of the rule; 0 takes nothing.
    pub weight: u16,
    /// Whether it takes no new connections.
    pub is_drained: bool,
}

/// How backends are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is tried.
    pub check: Check,
    /// At which port, if not that of the backend.
    pub port: Option<u16>,
    /// How often.
    pub interval: Duration,
    /// For how long.
    pub timeout: Duration,
    /// Successes in a row until it is up.
    pub rise: u32,
    /// Failures in a row until it is down.
    pub fall: u32,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: backends are always up.
    None,
    /// A connection.
    Tcp,
    /// A request, whose answer must have a status below 400.
    Http {
        /// Of what.
        path: String,
    },
    /// A datagram, which must be answered.
    Udp {
        /// Its bytes.
        payload: Vec<u8>,
    },
}

impl Rules {
    /// Reads the text of a rules file and judges all of it.
    pub fn read(text: &str) -> Result<Self, Problems> {
        Self::of_tree(parse_tree(text)?)
    }

    /// Judges a tree of the same shape.
    pub fn of_tree(tree: Value) -> Result<Self, Problems> {
        let schema = schemars::schema_for!(RulesDocument).to_value();
        check_shape(tree, &schema, |document, problems| Some(Self::validate(&document, problems)))
    }

    /// Judges a document.
    pub fn of_document(document: &RulesDocument) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let rules = Self::validate(document, &mut problems);
        if problems.is_empty() { Ok(rules) } else { Err(problems) }
    }

    fn validate(document: &RulesDocument, problems: &mut Problems) -> Self {
        let top = At::default();
        let places = places(&document.interfaces, &top.key("interfaces"), problems);
        let metrics = document.metrics.as_deref().and_then(|text| {
            let wrong = |_not_one| format!("`{text}` is no address and port, such as 127.0.0.1:9470");
            problems.take(&top.key("metrics"), text.parse().map_err(wrong))
        });
        let mut rules = Vec::new();
        for (index, document) in document.rules.iter().enumerate() {
            let at = top.key("rules").index(index);
            // What is wrong with one by itself does not hide what it says together with others.
            let rule = Rule::validate(document, &at, problems);
            rules.push((at, rule));
        }
        judge_together(&rules.iter().map(|(at, rule)| (at.clone(), rule)).collect::<Vec<_>>(), problems);
        let rules = rules.into_iter().map(|(_, rule)| (Arc::clone(&rule.name), Arc::new(rule))).collect();
        Self { places, capacity: document.connections, metrics, rules }
    }
}

/// Reads YAML, whatever it says.
pub fn parse_tree(text: &str) -> Result<Value, Problems> {
    parse_yaml(text).map_err(|reason| {
        let mut problems = Problems::default();
        problems.add(&At::default(), format!("the file is no YAML: {reason}"));
        problems
    })
}

/// Judges rules that come from several places: those of a file, and those of commands. Paths are names of rules.
pub fn judge_set(rules: &RuleSet) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let rules: Vec<(At, &Rule)> =
        rules.values().map(|rule| (At::default().key(&rule.name), &**rule)).collect();
    judge_together(&rules, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A rule as it was and as it is; `None` where there was or is none.
pub type Pair<'a> = (Option<&'a Arc<Rule>>, Option<&'a Arc<Rule>>);

/// Rules that are not the same memory in both, by name.
pub fn unlike<'a>(old: &'a RuleSet, new: &'a RuleSet) -> Vec<Pair<'a>> {
    let mut changed = Vec::new();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((after, _))) => before.cmp(after),
        };
        let before = if order == Ordering::Greater { None } else { old.next().map(|(_, rule)| rule) };
        let after = if order == Ordering::Less { None } else { new.next().map(|(_, rule)| rule) };
        let is_same = matches!((before, after), (Some(before), Some(after)) if Arc::ptr_eq(before, after));
        if !is_same {
            changed.push((before, after));
        }
    }
}

/// Reads an interface with its role, such as `veth0=client`.
pub fn parse_place(text: &str) -> Result<Place, String> {
    let (name, role) = text.split_once('=').unwrap_or((text, "uplink"));
    let role = match role {
        "uplink" => Role::Uplink,
        "client" => Role::Client,
        _ => return Err(format!("unknown role `{role}`: use {name}=uplink or {name}=client")),
    };
    // IFNAMSIZ is 16 with the zero byte; the rest is what the kernel refuses (dev_valid_name).
    let is_name = (1..16).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|it: char| it == '/' || it == ':' || it.is_whitespace());
    if is_name {
        Ok(Place { interface: name.to_owned(), role })
    } else {
        Err(format!("`{name}` is no name of an interface"))
    }
}

fn places(interfaces: &[String], at: &At, problems: &mut Problems) -> Vec<Place> {
    let mut names = BTreeSet::new();
    let mut places = Vec::new();
    for (index, text) in interfaces.iter().enumerate() {
        let at = at.index(index);
        let Some(place) = problems.take(&at, parse_place(text)) else { continue };
        if !names.insert(place.interface.clone()) {
            problems.add(&at, format!("{} is there twice: an interface has one role", place.interface));
        }
        places.push(place);
    }
    places
}

/// What rules may not say together: a name twice, a listener of two, a backend that is a listener.
fn judge_together(rules: &[(At, &Rule)], problems: &mut Problems) {
    let mut names: BTreeMap<&str, &At> = BTreeMap::new();
    let mut listeners: Listeners<(&At, usize)> = Listeners::default();
    // Where something is written is spelt out only where it is wrong: there are thousands of rules.
    let listen = |at: &At, index| at.key("listen").index(index);
    for (at, rule) in rules {
        if let Some(other) = names.insert(&rule.name, at) {
            let text = format!("{} is the name of {} as well", rule.name, other.as_str());
            problems.add(&at.key("name"), text);
        }
        for (index, listener) in rule.listeners.iter().enumerate() {
            if let Some((other, (owner, place))) = listeners.overlapping(listener) {
                let (other, owner) = (ListenerText(other), listen(owner, *place));
                let text =
                    format!("overlaps {other} of {}: no two rules may divert the same", owner.as_str());
                problems.add(&listen(at, index), text);
            }
            listeners.add(*listener, (at, index));
        }
    }
    for (at, rule) in rules {
        for (index, backend) in rule.backends.iter().enumerate() {
            let found = rule
                .transports()
                .find_map(|transport| listeners.catching(transport, backend.address, &rule.listeners));
            if let Some((listener, (owner, place))) = found {
                let text = format!(
                    "{} is diverted itself, by {} of {}: name the address where it goes",
                    AddressText(backend.address),
                    ListenerText(listener),
                    listen(owner, *place).as_str(),
                );
                problems.add(&at.key("backends").index(index), text);
            }
        }
    }
}

impl Rule {
    /// What its listeners carry, each once.
    pub(super) fn transports(&self) -> impl Iterator<Item = Transport> {
        let has =
            |transport: &Transport| self.listeners.iter().any(|listener| listener.transport == *transport);
        [Transport::Tcp, Transport::Udp].into_iter().filter(has)
    }

    /// Judges one rule by itself. With problems, it is what is left of it.
    fn validate(document: &RuleDocument, at: &At, problems: &mut Problems) -> Self {
        problems.take(&at.key("name"), text::check_name(&document.name));
        let listeners = listeners(&document.listen, &at.key("listen"), problems);
        let family = listeners.first().map(|listener| listener.prefix.address.is_ipv4());
        let (backends, services) = backends(&document.backends, family, &at.key("backends"), problems);
        let health = health(document, at, problems);
        if health.check != Check::None && health.port.is_none() {
            let has_port = |backend: &Backend| backend.address.port() != 0;
            if let Some(index) = backends.iter().position(|backend| !has_port(backend)) {
                let text = "has no port of its own to check: set health_port";
                problems.add(&at.key("backends").index(index), text);
            }
        }
        let range = |least: u64, most: u64| (Duration::from_millis(least), Duration::from_secs(most));
        let (shortest, longest) = range(1000, 7 * 86_400);
        let affinity = document.affinity.as_ref();
        let affinity = affinity.map(|length| length.within(shortest, longest, &at.key("affinity"), problems));
        let timeouts = {
            let at = at.key("timeouts");
            let document = &document.timeouts;
            let mut read = |length: &crate::config::LengthText, key: &str| {
                length.within(shortest, longest, &at.key(key), problems)
            };
            Timeouts {
                syn: read(&document.syn, "syn"),
                established: read(&document.established, "established"),
                closing: read(&document.closing, "closing"),
                udp: read(&document.udp, "udp"),
                udp_unreplied: read(&document.udp_unreplied, "udp_unreplied"),
            }
        };
        let (shortest, longest) = range(100, 86_400);
        let drain_timeout =
            document.drain_timeout.within(shortest, longest, &at.key("drain_timeout"), problems);
        Self {
            name: document.name.as_str().into(),
            listeners,
            backends,
            services,
            health,
            affinity,
            on_empty: match document.on_empty {
                OnEmptyDocument::Rst => OnEmpty::Reset,
                OnEmptyDocument::Drop => OnEmpty::Drop,
                OnEmptyDocument::Pass => OnEmpty::Pass,
            },
            on_full: match document.on_full {
                OnFullDocument::Drop => OnFull::Drop,
                OnFullDocument::Pass => OnFull::Pass,
            },
            ports: match document.port_policy {
                PortPolicyDocument::Preserve => PortPolicy::Preserve,
                PortPolicyDocument::OnCollision => PortPolicy::OnCollision,
                PortPolicyDocument::Always => PortPolicy::Always,
            },
            timeouts,
            new_per_second: document.new_per_second,
            drain_timeout,
            is_drained: document.drain,
        }
    }
}

fn listeners(texts: &[String], at: &At, problems: &mut Problems) -> Vec<Listener> {
    if texts.is_empty() {
        problems.add(at, "needs a listener, such as tcp:10.0.0.10:80");
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        let Some(listener) = problems.take(&at, text::parse_listener(text)) else { continue };
        let is_ipv4 = listener.prefix.address.is_ipv4();
        if listeners.first().is_some_and(|first| first.prefix.address.is_ipv4() != is_ipv4) {
            problems.add(&at, "mixes address families: make one rule for IPv4 and one for IPv6");
        }
        listeners.push(listener);
    }
    listeners
}

fn backends(
    texts: &[String],
    is_ipv4: Option<bool>,
    at: &At,
    problems: &mut Problems,
) -> (Vec<Backend>, Vec<ServiceBackends>) {
    let mut seen = BTreeSet::new();
    let mut backends = Vec::new();
    let mut services: Vec<ServiceBackends> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        if let Some(service) = parse_service(text) {
            let Some(service) = problems.take(&at, service) else { continue };
            if services.iter().any(|other| other.port == service.port) {
                problems
                    .add(&at, format!("{} is there twice: give it more weight", ServiceText(&service.port)));
            }
            services.push(service);
            continue;
        }
        let Some(backend) = problems.take(&at, text::parse_backend(text)) else { continue };
        if is_ipv4.is_some_and(|is_ipv4| backend.address.is_ipv4() != is_ipv4) {
            let family = if backend.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let text =
                format!("is {family}, unlike the listener: addresses are rewritten within one family only");
            problems.add(&at, text);
        }
        if !seen.insert(backend.address) {
            problems
                .add(&at, format!("{} is there twice: give it more weight", AddressText(backend.address)));
        }
        backends.push(backend);
    }
    (backends, services)
}

fn health(document: &RuleDocument, at: &At, problems: &mut Problems) -> Health {
    let check = problems.take(&at.key("health"), text::parse_check(&document.health));
    let (shortest, longest) = (Duration::from_millis(100), Duration::from_hours(1));
    let interval = document.health_interval.within(shortest, longest, &at.key("health_interval"), problems);
    let (shortest, longest) = (Duration::from_millis(10), Duration::from_mins(1));
    let timeout = document.health_timeout.within(shortest, longest, &at.key("health_timeout"), problems);
    Health {
        check: check.unwrap_or(Check::None),
        port: document.health_port,
        interval,
        timeout,
        rise: document.rise,
        fall: document.fall,
    }
}
