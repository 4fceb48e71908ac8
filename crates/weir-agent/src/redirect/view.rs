//! What the proxy looks like from outside: rules, connections and counters under their names.
//!
//! The same for a control process that runs and for one that does not: [`Book`] is names, wherever they come from, and
//! the datapath, which may have been opened to read only.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use thiserror::Error;
use weir_api::proxy::{
    BackendStats, BackendView, Carried, ConnectionView, ConnectionsAnswer, LeavingView, ProxyInterface,
    ProxySockets, RuleStats, RuleView, RulesAnswer, StatsAnswer,
};
use weir_datapath::redirect::{
    BackendCounters, BackendId, Connection, Counters, DropReason, PlaceHook, PlaceState, Redirect,
    RedirectError, RuleId,
};

use super::{
    Source, Sources,
    engine::{Condition, Engine, in_effect, recovered},
    health::Target,
    proxy::{condition_text, live},
    resolve::Services,
    rules::{Backend, Rule, RuleSet},
    state::{State, StateError, role_text},
    text::{AddressText, ListenerText, transport},
};
use crate::causes::with_causes;

/// Names, and the datapath that they are for.
pub struct Book<'a> {
    /// The datapath.
    pub datapath: &'a Redirect,
    /// What it should do.
    pub engine: &'a Engine,
    /// The rules as written.
    pub written: &'a RuleSet,
    /// Where services lead.
    pub services: &'a Services,
    /// Where rules come from.
    pub sources: &'a Sources,
}

/// What a control process that does not run has left.
pub struct Left {
    datapath: Redirect,
    engine: Engine,
    written: RuleSet,
    services: Services,
    sources: Sources,
}

/// Which connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsWanted {
    /// Those of one rule.
    pub rule: Option<String>,
    /// Those of one client.
    pub client: Option<IpAddr>,
    /// How many at most.
    pub limit: usize,
}

/// Why what was left cannot be read.
#[derive(Debug, Error)]
pub enum LeftError {
    /// The pins cannot be read.
    #[error("cannot read what is pinned")]
    Pins(#[from] RedirectError),
    /// The names cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Left {
    /// Reads pins and state; `None` if nothing is pinned.
    pub fn read(root: &Path, state: &Path) -> Result<Option<Self>, LeftError> {
        let Some(datapath) = Redirect::peek(root)? else { return Ok(None) };
        let published = datapath.published()?;
        let state =
            State::read(state)?.unwrap_or_else(|| State { rules: recovered(&published), ..State::default() });
        let State { rules: written, sources, orders, services, .. } = state;
        let services = Services::new(services);
        let rules = services.expand_changed(&written, &in_effect(&published, &written));
        let engine = Engine::resume(&published, rules, orders);
        Ok(Some(Self { datapath, engine, written, services, sources }))
    }

    /// Names and datapath.
    pub fn book(&self) -> Book<'_> {
        Book {
            datapath: &self.datapath,
            engine: &self.engine,
            written: &self.written,
            services: &self.services,
            sources: &self.sources,
        }
    }
}

impl Book<'_> {
    /// Rules and backends, and how they are.
    pub fn rules(&self) -> Result<RulesAnswer, RedirectError> {
        let live = live(self.datapath)?;
        let count = |id: Option<BackendId>| id.and_then(|id| live.get(&id)).copied().unwrap_or(0);
        let mut services = self.services.states(self.written);
        let mut rules = Vec::new();
        for rule in self.engine.rules().values() {
            let mut backends = Vec::with_capacity(rule.backends.len());
            for backend in &rule.backends {
                backends.push(BackendView {
                    connections: self.ids(rule, backend).map(|id| count(Some(id))).sum(),
                    place: self.datapath.is_here(backend.address.ip())?.then(|| "here".to_owned()),
                    ..self.backend(rule, backend)
                });
            }
            let source = self.sources.get(&rule.name).copied().unwrap_or(Source::Command);
            rules.push(RuleView {
                name: rule.name.to_string(),
                source: if source == Source::File { "file" } else { "command" }.to_owned(),
                listen: rule.listeners.iter().map(|it| ListenerText(*it).to_string()).collect(),
                health: rule.health.check.to_string(),
                is_drained: rule.is_drained || self.engine.orders().drained_rules.contains(&rule.name),
                connections: backends.iter().map(|backend| backend.connections).sum(),
                backends,
                services: services.remove(&rule.name).unwrap_or_default(),
            });
        }
        let leaving = self.engine.leaving().map(|(listener, address, id, since)| LeavingView {
            listen: ListenerText(listener).to_string(),
            address: AddressText(address).to_string(),
            connections: count(Some(id)),
            seconds: since.elapsed().as_secs_f64(),
        });
        Ok(RulesAnswer {
            interfaces: self.datapath.places().iter().map(interface_view).collect(),
            sockets: sockets_view(self.datapath),
            rules,
            leaving: leaving.collect(),
        })
    }

    /// Connections that were asked for.
    pub fn connections(&self, wanted: &ConnectionsWanted) -> Result<ConnectionsAnswer, RedirectError> {
        let mut answer = ConnectionsAnswer::default();
        self.datapath.connections(&mut |connection| {
            let rule = self.engine.owner(connection.rule).map_or("", |name| &**name);
            let is_wanted = wanted.rule.as_ref().is_none_or(|wanted| wanted == rule)
                && wanted.client.is_none_or(|client| client == connection.tuple.client.ip());
            if is_wanted {
                answer.total += 1;
                if answer.connections.len() < wanted.limit {
                    answer.connections.push(connection_view(connection, rule));
                }
            }
            ControlFlow::Continue(())
        })?;
        let order = |view: &ConnectionView| (view.listen.clone(), view.client.clone());
        answer.connections.sort_by_cached_key(order);
        Ok(answer)
    }

    /// What everything carried.
    pub fn stats(&self) -> Result<StatsAnswer, RedirectError> {
        let counters = self.datapath.counters()?;
        let live = live(self.datapath)?;
        let mut rules = Vec::new();
        for rule in self.engine.rules().values() {
            let mut stats = RuleStats { name: rule.name.to_string(), ..RuleStats::default() };
            for id in self.engine.ids_of(rule) {
                let Some(counted) = counters.rules.get(&id) else { continue };
                stats.sum += carried(counted.sum);
                for (reason, packets) in &counted.reasons {
                    *stats.reasons.entry(reason.name().to_owned()).or_default() += packets;
                }
            }
            for backend in &rule.backends {
                stats.backends.push(self.backend_stats(rule, backend, &counters, &live));
            }
            stats.connections = stats.backends.iter().map(|backend| backend.connections).sum();
            rules.push(stats);
        }
        Ok(StatsAnswer {
            connections: live.values().sum(),
            capacity: counters.capacity,
            rules,
            other: named(&counters.other),
        })
    }

    fn backend_stats(
        &self,
        rule: &Rule,
        backend: &Backend,
        counters: &Counters,
        live: &std::collections::HashMap<BackendId, u64>,
    ) -> BackendStats {
        let mut sum = Carried::default();
        let mut connections = 0;
        for id in self.ids(rule, backend) {
            sum += counters.backends.get(&id).copied().map(carried).unwrap_or_default();
            connections += live.get(&id).copied().unwrap_or(0);
        }
        let state = condition_text(&self.engine.condition(rule, backend)).to_owned();
        BackendStats { address: AddressText(backend.address).to_string(), state, sum, connections }
    }

    fn backend(&self, rule: &Rule, backend: &Backend) -> BackendView {
        let condition = self.engine.condition(rule, backend);
        let target = Target { rule: Arc::clone(&rule.name), backend: backend.address };
        let trouble = match &condition {
            Condition::Down(trouble) => Some(trouble.clone()).filter(|trouble| !trouble.is_empty()),
            _ => self.engine.trouble(&target).map(str::to_owned),
        };
        BackendView {
            address: AddressText(backend.address).to_string(),
            weight: self.engine.weight(rule, backend),
            state: condition_text(&condition).to_owned(),
            trouble,
            place: None,
            connections: 0,
        }
    }

    /// The numbers of a backend, one for each listener of its rule.
    fn ids(&self, rule: &Rule, backend: &Backend) -> impl Iterator<Item = BackendId> {
        let ids: Vec<RuleId> = self.engine.ids_of(rule).collect();
        let address: SocketAddr = backend.address;
        ids.into_iter().filter_map(move |id| self.engine.backend_id(id, address))
    }
}

/// An interface as it is shown.
pub(super) fn interface_view(place: &PlaceState) -> ProxyInterface {
    ProxyInterface {
        name: place.interface.clone(),
        role: role_text(place.role).to_owned(),
        hook: match place.hook {
            PlaceHook::Tcx => "tcx",
            PlaceHook::Clsact => "clsact",
        }
        .to_owned(),
        is_alive: place.is_alive,
    }
}

/// How sockets of this machine are led to backends.
pub(super) fn sockets_view(datapath: &Redirect) -> ProxySockets {
    let local = datapath.local();
    ProxySockets {
        cgroup: local.cgroup.map(|path| path.display().to_string()),
        is_alive: local.is_alive,
        trouble: datapath.local_trouble().map(|error| with_causes(error)),
    }
}

fn connection_view(connection: &Connection, rule: &str) -> ConnectionView {
    ConnectionView {
        transport: transport(connection.tuple.transport).to_owned(),
        client: connection.tuple.client.to_string(),
        listen: connection.tuple.listen.to_string(),
        backend: connection.backend_address.to_string(),
        rule: rule.to_owned(),
        client_port_used: connection.client_port_used,
        state: connection.state.as_str().to_owned(),
        age_seconds: connection.age.as_secs_f64(),
        idle_seconds: connection.idle.as_secs_f64(),
        is_direct: connection.is_direct,
    }
}

fn carried(counters: BackendCounters) -> Carried {
    Carried {
        forward_packets: counters.forward_packets,
        forward_bytes: counters.forward_bytes,
        reverse_packets: counters.reverse_packets,
        reverse_bytes: counters.reverse_bytes,
        opened: counters.opened,
        closed: counters.closed,
        sockets: counters.opened_here,
    }
}

fn named(reasons: &BTreeMap<DropReason, u64>) -> BTreeMap<String, u64> {
    reasons.iter().map(|(reason, packets)| (reason.name().to_owned(), *packets)).collect()
}
