//! What a restart has to know that the kernel does not keep: names, checks, orders.
//!
//! One JSON file that only its owner can read, replaced as a whole. Numbers are not in it; they are read back from the
//! kernel. Lost, it costs names and checks, never a connection.

mod file;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weir_datapath::redirect::{LocalMode, OnEmpty, OnFull, Place, PortPolicy, Role};

pub use self::file::StateFile;
use super::{
    Source, Sources,
    diff::length,
    document::{
        OnEmptyDocument, OnFullDocument, PortPolicyDocument, RuleDocument, RulesDocument, TimeoutsDocument,
    },
    engine::Orders,
    health::Target,
    resolve::ServiceKey,
    rules::{Rule, RuleSet, Rules, parse_place},
    service::{ServiceText, parse_service},
    text::{AddressText, ListenerText, parse_backend_address},
};
use crate::{
    config::Problems,
    kubernetes::endpoints::{Endpoint, Protocol},
};

/// The form of the file.
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no state.
    #[error("{} is no state of this version: {reason}; remove it to go on with what the kernel has", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What becomes of sockets of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Whether they are led to backends.
    pub local: LocalMode,
    /// The cgroup whose processes these are of, if not the topmost one.
    pub cgroup: Option<PathBuf>,
}

/// What a restart has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Where packets are looked at.
    pub places: Vec<(Place, Source)>,
    /// What becomes of sockets of this machine.
    pub sockets: Sockets,
    /// The file that says where the API server of Kubernetes is.
    pub kubeconfig: Option<PathBuf>,
    /// Where services led.
    pub services: BTreeMap<ServiceKey, Vec<Endpoint>>,
    /// The rules, as written.
    pub rules: RuleSet,
    /// Where each of them comes from.
    pub sources: Sources,
    /// What commands said.
    pub orders: Orders,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateDocument {
    version: u32,
    interfaces: Vec<(Source, String)>,
    #[serde(default)]
    sockets: SocketsDocument,
    #[serde(default)]
    kubeconfig: Option<PathBuf>,
    #[serde(default)]
    services: Vec<ServiceDocument>,
    #[serde(skip_serializing)]
    rules: Vec<(Source, RuleDocument)>,
    drained_rules: Vec<String>,
    drained: Vec<(String, String)>,
    weights: Vec<(String, String, u16)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SocketsDocument {
    is_off: bool,
    cgroup: Option<PathBuf>,
}

/// Where a port of a service led: the port, its transport, addresses and whether they take new connections.
#[derive(Debug, Serialize, Deserialize)]
struct ServiceDocument {
    service: String,
    transport: String,
    endpoints: Vec<(SocketAddr, bool)>,
}

impl ServiceDocument {
    fn of((key, endpoints): (&ServiceKey, &Vec<Endpoint>)) -> Self {
        let (port, protocol) = key;
        Self {
            service: ServiceText(port).to_string(),
            transport: match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            }
            .to_owned(),
            endpoints: endpoints.iter().map(|it| (it.address, it.takes_new)).collect(),
        }
    }

    fn read(&self) -> Result<(ServiceKey, Vec<Endpoint>), String> {
        let service = parse_service(&self.service)
            .ok_or_else(|| format!("`{}` is no service", self.service))?
            .map_err(|error| error.to_string())?;
        let protocol = if self.transport == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let endpoint =
            |(address, takes_new): &(SocketAddr, bool)| Endpoint { address: *address, takes_new: *takes_new };
        Ok(((service.port, protocol), self.endpoints.iter().map(endpoint).collect()))
    }
}

impl State {
    /// Reads it. `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, StateError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
        };
        let wrong = |reason: String| StateError::Content { path: path.to_owned(), reason };
        let document: StateDocument =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if document.version != VERSION {
            return Err(wrong(format!("it has version {}", document.version)));
        }
        Self::of_document(document).map(Some).map_err(wrong)
    }

    /// All but the rules.
    fn document(&self) -> StateDocument {
        let pair = |target: &Target| (target.rule.to_string(), AddressText(target.backend).to_string());
        StateDocument {
            version: VERSION,
            interfaces: self.places.iter().map(|(place, source)| (*source, place_text(place))).collect(),
            sockets: SocketsDocument {
                is_off: self.sockets.local == LocalMode::Off,
                cgroup: self.sockets.cgroup.clone(),
            },
            kubeconfig: self.kubeconfig.clone(),
            services: self.services.iter().map(ServiceDocument::of).collect(),
            rules: Vec::new(),
            drained_rules: self.orders.drained_rules.iter().map(ToString::to_string).collect(),
            drained: self.orders.drained.iter().map(pair).collect(),
            weights: self
                .orders
                .weights
                .iter()
                .map(|(target, weight)| {
                    let (rule, backend) = pair(target);
                    (rule, backend, *weight)
                })
                .collect(),
        }
    }

    fn of_document(document: StateDocument) -> Result<Self, String> {
        let sources =
            document.rules.iter().map(|(source, rule)| (rule.name.as_str().into(), *source)).collect();
        let rules = document.rules.into_iter().map(|(_, rule)| rule).collect();
        let rules = Rules::of_document(&RulesDocument { rules, ..RulesDocument::default() })
            .map_err(|problems: Problems| problems.to_string())?;
        let mut places = Vec::new();
        for (source, text) in &document.interfaces {
            places.push((parse_place(text)?, *source));
        }
        let target = |rule: &str, backend: &str| -> Result<Target, String> {
            let backend = parse_backend_address(backend).map_err(|error| error.to_string())?;
            Ok(Target { rule: rule.into(), backend })
        };
        let mut orders = Orders::default();
        orders.drained_rules.extend(document.drained_rules.iter().map(|name| name.as_str().into()));
        for (rule, backend) in &document.drained {
            orders.drained.insert(target(rule, backend)?);
        }
        for (rule, backend, weight) in &document.weights {
            orders.weights.insert(target(rule, backend)?, *weight);
        }
        let SocketsDocument { is_off, cgroup } = document.sockets;
        let sockets = Sockets { local: if is_off { LocalMode::Off } else { LocalMode::Cgroup }, cgroup };
        let services = document.services.iter().map(ServiceDocument::read).collect::<Result<_, _>>()?;
        let kubeconfig = document.kubeconfig;
        Ok(Self { places, sockets, kubeconfig, services, rules: rules.rules, sources, orders })
    }
}

/// Writes an interface with its role as it is read.
pub fn place_text(place: &Place) -> String {
    format!("{}={}", place.interface, role_text(place.role))
}

/// Writes a role.
pub fn role_text(role: Role) -> &'static str {
    match role {
        Role::Uplink => "uplink",
        Role::Client => "client",
    }
}

/// A rule as it would be written into a file.
pub fn document_of(rule: &Rule) -> RuleDocument {
    let text = |time| length(time).as_str().into();
    let (health, timeouts) = (&rule.health, &rule.timeouts);
    RuleDocument {
        name: rule.name.to_string(),
        listen: rule.listeners.iter().map(|listener| ListenerText(*listener).to_string()).collect(),
        backends: {
            let backends = rule.backends.iter().map(ToString::to_string);
            backends.chain(rule.services.iter().map(ToString::to_string)).collect()
        },
        health: health.check.to_string(),
        health_port: health.port,
        health_interval: text(health.interval),
        health_timeout: text(health.timeout),
        rise: health.rise,
        fall: health.fall,
        affinity: rule.affinity.map(text),
        on_empty: match rule.on_empty {
            OnEmpty::Reset => OnEmptyDocument::Rst,
            OnEmpty::Drop => OnEmptyDocument::Drop,
            OnEmpty::Pass => OnEmptyDocument::Pass,
        },
        on_full: match rule.on_full {
            OnFull::Drop => OnFullDocument::Drop,
            OnFull::Pass => OnFullDocument::Pass,
        },
        port_policy: match rule.ports {
            PortPolicy::Preserve => PortPolicyDocument::Preserve,
            PortPolicy::OnCollision => PortPolicyDocument::OnCollision,
            PortPolicy::Always => PortPolicyDocument::Always,
        },
        timeouts: TimeoutsDocument {
            syn: text(timeouts.syn),
            established: text(timeouts.established),
            closing: text(timeouts.closing),
            udp: text(timeouts.udp),
            udp_unreplied: text(timeouts.udp_unreplied),
        },
        new_per_second: rule.new_per_second,
        drain_timeout: text(rule.drain_timeout),
        drain: rule.is_drained,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::redirect::resolve;

    const FILE: &str = "
interfaces: [veth0, veth1=client]
rules:
  - {name: plain, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:80]}
  - name: full
    listen: [udp:10.0.0.11:53, tcp:10.0.0.11:53]
    backends: ['10.1.0.1:53,weight=3', '10.1.0.2:53,drain', 'service:kube-system/kube-dns:53,weight=2']
    health: udp:0a0b
    health_port: 54
    health_interval: 500ms
    health_timeout: 1500ms
    rise: 4
    fall: 5
    affinity: 30m
    on_empty: drop
    on_full: pass
    port_policy: always
    timeouts: {syn: 10s, established: 2h, closing: 7s, udp: 90s, udp_unreplied: 100s}
    new_per_second: 1000
    drain_timeout: 250ms
    drain: true
";

    #[test]
    fn what_is_written_is_what_is_read() {
        let rules = Rules::read(FILE).unwrap();
        let target = Target { rule: "full".into(), backend: ([10, 1, 0, 1], 53).into() };
        let orders = Orders {
            drained_rules: ["plain".into()].into(),
            drained: [target.clone()].into(),
            weights: [(target, 9)].into(),
        };
        let ports = resolve::services_of(&rules.rules);
        let endpoint = |takes_new| Endpoint { address: ([10, 2, 0, 1], 53).into(), takes_new };
        let services = ports.into_iter().map(|key| (key, vec![endpoint(true), endpoint(false)])).collect();
        let sources =
            [("plain".into(), Source::File), ("full".into(), Source::Command)].into_iter().collect();
        let places: Vec<_> = rules.places.into_iter().map(|place| (place, Source::File)).collect();
        let sockets = Sockets { local: LocalMode::Off, cgroup: Some("/sys/fs/cgroup/x".into()) };
        let kubeconfig = Some("/etc/kubeconfig".into());
        let state = State { places, sockets, kubeconfig, services, rules: rules.rules, sources, orders };
        assert_eq!(state.services.len(), 2);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(State::read(&path).unwrap(), None);
        let mut file = StateFile::new(&path);
        file.write(&State::default()).unwrap();
        assert_eq!(State::read(&path).unwrap(), Some(State::default()));
        file.write(&state).unwrap();
        file.write(&state).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(State::read(&path).unwrap(), Some(state));
    }

    #[test]
    fn another_version_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, "{}").unwrap();
        let said = State::read(&path).unwrap_err().to_string();
        assert!(said.contains("remove it to go on"), "{said}");
    }
}
