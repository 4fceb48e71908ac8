//! Where ports of chosen services lead, as lists of endpoints: for whoever sends something there.
//!
//! [`Index`] is made of what the watches of one namespace tell (pure: no I/O, no clock). What it has heard of it keeps
//! when the API server is lost; a list that is read anew takes away what it does not have any more.

mod follow;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use hashbrown::HashMap;

pub use self::follow::{Api, EndpointsFeed, NoApi, Told};
use super::{
    backends::{Backends, ServiceName, Slices},
    cluster::{Change, Object, Resource, SERVICE_LABEL},
    objects::{Metadata, Port},
};

/// A port of a service, for one transport.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub service: Arc<str>,
    /// Which port.
    pub port: PortRef,
}

/// Which port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    /// The port of the service, not that of its endpoints.
    Number(u16),
    /// The name that both have.
    Name(Arc<str>),
}

/// A protocol whose ports services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who answers at a port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// Whether new connections may go there: it is ready, and not on its way out.
    pub takes_new: bool,
}

/// Why a service leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// There is no such service.
    #[error("there is no service {namespace}/{service}")]
    NoService {
        /// The namespace.
        namespace: Arc<str>,
        /// The service.
        service: Arc<str>,
    },
    /// The service has no such port.
    #[error("service {namespace}/{service} has no such port: it has {}", .there.join(", "))]
    NoPort {
        /// The namespace.
        namespace: Arc<str>,
        /// The service.
        service: Arc<str>,
        /// The ports that it has.
        there: Vec<String>,
    },
}

/// Services of a namespace and where they lead.
#[derive(Debug, Default)]
pub struct Index {
    /// Ports of services, and the number of the list that they were in.
    services: HashMap<ServiceName, (Box<[Port]>, u32)>,
    slices: Slices,
    /// Numbers of the lists: of services, of slices.
    lists: (u32, u32),
    /// Whether a list was complete once: of services, of slices.
    is_complete: (bool, bool),
}

impl Index {
    /// Takes in news.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Listing(Resource::Services) => self.lists.0 += 1,
            Change::Listing(Resource::EndpointSlices) => self.lists.1 += 1,
            Change::Applied(_, Object::Service(service)) => {
                let ports = service.spec.ports.clone().into();
                self.services.insert(name_of(&service.metadata), (ports, self.lists.0));
            }
            Change::Deleted(_, Object::Service(service)) => {
                self.services.remove(&name_of(&service.metadata));
            }
            Change::Applied(_, Object::EndpointSlice(slice)) => {
                if let Some(service) = service_of(&slice.metadata) {
                    self.slices.apply(service, slice, self.lists.1);
                }
            }
            Change::Deleted(_, Object::EndpointSlice(slice)) => {
                if let Some(service) = service_of(&slice.metadata) {
                    self.slices.delete(&service, &slice.metadata.uid);
                }
            }
            Change::Listed(Resource::Services) => {
                let list = self.lists.0;
                self.services.retain(|_, (_, number)| *number == list);
                self.is_complete.0 = true;
            }
            Change::Listed(Resource::EndpointSlices) => {
                self.slices.keep_list(self.lists.1);
                self.is_complete.1 = true;
            }
            _ => {}
        }
    }

    /// Where a port of a service leads. `None` if that was not heard yet.
    pub fn endpoints(
        &self,
        port: &ServicePort,
        protocol: Protocol,
    ) -> Option<Result<Vec<Endpoint>, Nowhere>> {
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        let service: ServiceName = (Arc::clone(&port.namespace), Arc::clone(&port.service));
        let name: &str = match &port.port {
            _ if !self.is_complete.1 => return None,
            PortRef::Name(name) => name,
            PortRef::Number(_) if !self.is_complete.0 => return None,
            PortRef::Number(wanted) => {
                let Some((ports, _)) = self.services.get(&service) else {
                    return Some(Err(no_service(&service)));
                };
                let is_meant =
                    |port: &&Port| port.port == Some(*wanted) && Backends::protocol(port) == number;
                match ports.iter().find(is_meant) {
                    Some(port) => &port.name,
                    None => return Some(Err(no_port(&service, ports.iter()))),
                }
            }
        };
        let is_meant = |port: &Port| port.name == name && Backends::protocol(port) == number;
        let found = self.slices.endpoints(&service, is_meant);
        if found.is_empty()
            && matches!(port.port, PortRef::Name(_))
            && let Some(nowhere) = self.why_nowhere(&service, is_meant)
        {
            return Some(Err(nowhere));
        }
        let endpoint = |(address, takes_new)| Endpoint { address, takes_new };
        Some(Ok(found.into_iter().map(endpoint).collect()))
    }

    /// Why nobody answers at a port by its name; `None` if that is right so.
    fn why_nowhere(&self, service: &ServiceName, is_meant: impl Fn(&Port) -> bool) -> Option<Nowhere> {
        let of_service = self.services.get(service).map(|(ports, _)| ports);
        let ports: Vec<&Port> = of_service.into_iter().flatten().chain(self.slices.ports(service)).collect();
        if ports.is_empty() {
            return (of_service.is_none() && self.is_complete.0).then(|| no_service(service));
        }
        (!ports.iter().any(|port| is_meant(port))).then(|| no_port(service, ports.into_iter()))
    }
}

fn no_service((namespace, service): &ServiceName) -> Nowhere {
    Nowhere::NoService { namespace: Arc::clone(namespace), service: Arc::clone(service) }
}

fn no_port<'a>((namespace, service): &ServiceName, ports: impl Iterator<Item = &'a Port>) -> Nowhere {
    let text = |port: &Port| {
        let number = port.port.map_or_else(String::new, |number| number.to_string());
        let name = if port.name.is_empty() { String::new() } else { format!(" ({})", port.name) };
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        format!("{number}{name} {protocol}")
    };
    let there: BTreeSet<String> = ports.map(text).collect();
    Nowhere::NoPort {
        namespace: Arc::clone(namespace),
        service: Arc::clone(service),
        there: there.into_iter().collect(),
    }
}

fn name_of(metadata: &Metadata) -> ServiceName {
    (metadata.namespace.as_deref().unwrap_or_default().into(), metadata.name.as_str().into())
}

/// The service that a slice tells.
fn service_of(metadata: &Metadata) -> Option<ServiceName> {
    let service = metadata.labels.get(SERVICE_LABEL)?;
    Some((metadata.namespace.as_deref().unwrap_or_default().into(), service.as_str().into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(ports: &Value) -> Change {
        let object =
            json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": { "ports": ports } });
        let service = serde_json::from_value(object).unwrap();
        Change::Applied(Resource::Services, Object::Service(Box::new(service)))
    }

    fn slice(uid: &str, ports: &Value, endpoints: &Value) -> Change {
        let labels = json!({ SERVICE_LABEL: "web" });
        let object = json!({
            "metadata": { "name": uid, "namespace": "shop", "uid": uid, "labels": labels },
            "ports": ports, "endpoints": endpoints,
        });
        let slice = serde_json::from_value(object).unwrap();
        Change::Applied(Resource::EndpointSlices, Object::EndpointSlice(Box::new(slice)))
    }

    fn port(port: PortRef) -> ServicePort {
        ServicePort { namespace: "shop".into(), service: "web".into(), port }
    }

    fn lists(changes: &[Change]) -> Index {
        let mut index = Index::default();
        let kinds = [Resource::Services, Resource::EndpointSlices];
        let (begin, end) = (kinds.map(Change::Listing), kinds.map(Change::Listed));
        for change in begin.iter().chain(changes).chain(&end) {
            index.apply(change);
        }
        index
    }

    fn text(index: &Index, of: PortRef, protocol: Protocol) -> String {
        match index.endpoints(&port(of), protocol) {
            None => "not heard".to_owned(),
            Some(Err(nowhere)) => nowhere.to_string(),
            Some(Ok(endpoints)) => {
                let mark = |takes_new| if takes_new { '+' } else { '-' };
                let texts = endpoints.iter().map(|it| format!("{}{}", mark(it.takes_new), it.address));
                texts.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn ports_go_by_the_number_of_the_service_or_by_the_name_of_both() {
        let ports = json!([
            { "name": "http", "port": 80 },
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        ]);
        let targets = json!([
            { "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "dns", "port": 5353, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 5354, "protocol": "TCP" },
        ]);
        let endpoints = json!([{ "addresses": ["10.1.0.1", "10.1.0.9"] }, { "addresses": ["fd00::1"] }]);
        let index = lists(&[service(&ports), slice("1", &targets, &endpoints)]);
        let check = |of: PortRef, protocol, expect: &str| {
            assert_eq!(text(&index, of.clone(), protocol), expect, "{of:?}");
        };
        let name = |name: &str| PortRef::Name(name.into());
        check(PortRef::Number(80), Protocol::Tcp, "+10.1.0.1:8080 +[fd00::1]:8080");
        check(name("http"), Protocol::Tcp, "+10.1.0.1:8080 +[fd00::1]:8080");
        check(PortRef::Number(53), Protocol::Udp, "+10.1.0.1:5353 +[fd00::1]:5353");
        check(PortRef::Number(53), Protocol::Tcp, "+10.1.0.1:5354 +[fd00::1]:5354");
        let there = "service shop/web has no such port: it has 53 (dns) UDP, 53 (dns-tcp) TCP, 80 (http) TCP";
        check(PortRef::Number(8080), Protocol::Tcp, there);
        check(PortRef::Number(80), Protocol::Udp, there);
        assert!(text(&index, name("https"), Protocol::Tcp).contains("has no such port"));
    }

    #[test]
    fn only_what_is_ready_and_not_on_its_way_out_takes_anything_new() {
        let ports = json!([{ "name": null, "port": 8080 }]);
        let endpoint = |host: u8, conditions: Value| json!({ "addresses": [format!("10.1.0.{host}")], "conditions": conditions });
        let endpoints = json!([
            endpoint(1, json!({})),
            endpoint(2, json!({ "ready": true })),
            endpoint(3, json!({ "ready": false })),
            endpoint(4, json!({ "ready": false, "serving": true, "terminating": true })),
            endpoint(5, json!({ "ready": true, "terminating": true })),
            endpoint(6, Value::Null),
        ]);
        let services = json!([{ "port": 80 }]);
        // Two slices have the third while it moves.
        let moved = slice("2", &ports, &json!([endpoint(3, json!({ "ready": true }))]));
        let index = lists(&[service(&services), slice("1", &ports, &endpoints), moved]);
        assert_eq!(
            text(&index, PortRef::Number(80), Protocol::Tcp),
            "+10.1.0.1:8080 +10.1.0.2:8080 +10.1.0.3:8080 -10.1.0.4:8080 -10.1.0.5:8080 +10.1.0.6:8080"
        );
    }

    #[test]
    fn what_was_heard_stays_until_a_list_does_not_have_it() {
        let ports = json!([{ "name": "http", "port": 80 }]);
        let name = || PortRef::Name("http".into());
        assert_eq!(text(&Index::default(), name(), Protocol::Tcp), "not heard");
        let mut index = lists(&[
            service(&ports),
            slice("1", &ports, &json!([{ "addresses": ["10.1.0.1"] }])),
            slice("2", &ports, &json!([{ "addresses": ["10.1.0.2"] }])),
        ]);
        index.apply(&Change::Lost(Resource::EndpointSlices));
        index.apply(&Change::Listing(Resource::EndpointSlices));
        index.apply(&slice("2", &ports, &json!([{ "addresses": ["10.1.0.3"] }])));
        assert_eq!(text(&index, name(), Protocol::Tcp), "+10.1.0.1:80 +10.1.0.3:80");
        index.apply(&Change::Listed(Resource::EndpointSlices));
        assert_eq!(text(&index, name(), Protocol::Tcp), "+10.1.0.3:80");
        let gone = slice("2", &ports, &json!([]));
        if let Change::Applied(kind, object) = gone {
            index.apply(&Change::Deleted(kind, object));
        }
        assert_eq!(text(&index, name(), Protocol::Tcp), "");
        if let Change::Applied(kind, object) = service(&ports) {
            index.apply(&Change::Deleted(kind, object));
        }
        for of in [name(), PortRef::Number(80)] {
            assert_eq!(text(&index, of, Protocol::Tcp), "there is no service shop/web");
        }
    }
}
