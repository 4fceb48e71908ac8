//! Where a service leads: the endpoints of all its slices, as one table to look up in.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use weir_flow::Wall;

use super::{
    names::key,
    objects::{EndpointSlice, Port, addresses},
};

/// How long a service must have had one endpoint only before a new connection is known to lead there: nodes learn of a
/// change some time after us.
const SETTLED: Duration = Duration::from_mins(1);

/// Namespace and name of a service.
pub(super) type ServiceName = (Arc<str>, Arc<str>);

/// The slices of one service, by identifier.
type SlicesOfService = HashMap<Box<str>, Slice>;

/// Where a service leads.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    /// (protocol, port of the service, port of the endpoint, address of the endpoint), sorted.
    ways: Box<[Way]>,
    /// The only endpoint there is, and since when.
    only: Option<(IpAddr, Wall)>,
}

/// One way from the service to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    protocol: u8,
    port: u16,
    target_port: u16,
    address: u128,
}

impl Backends {
    /// Whether what is sent to `port` of the service may arrive at this address and port.
    pub fn lead_to(&self, protocol: u8, port: u16, address: IpAddr, target_port: u16) -> bool {
        let way = Way { protocol, port, target_port, address: key(address) };
        self.ways.binary_search(&way).is_ok()
    }

    /// The only endpoint, for connections that began at `start`.
    pub fn only(&self, start: Wall) -> Option<IpAddr> {
        self.only.filter(|(_, since)| start >= *since + SETTLED).map(|(address, _)| address)
    }

    /// The number of the protocol; 0 is none that has ports.
    pub(super) fn protocol(port: &Port) -> u8 {
        match port.protocol.as_str() {
            "" | "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => 0,
        }
    }
}

/// The slices of every service, from which its [`Backends`] are made.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// By namespace and name of the service, then by identifier of the slice.
    services: HashMap<ServiceName, SlicesOfService>,
}

#[derive(Debug)]
struct Slice {
    /// Addresses, and whether new connections may go there; sorted.
    endpoints: Box<[(IpAddr, bool)]>,
    ports: Box<[Port]>,
    list: u32,
}

impl Slices {
    /// Takes in a slice; `list` numbers the list that it was in.
    pub(super) fn apply(&mut self, service: ServiceName, slice: &EndpointSlice, list: u32) {
        let firsts = slice.endpoints.iter().filter_map(|endpoint| {
            let address = addresses(endpoint.addresses.first().map(String::as_str).into_iter());
            Some((*address.first()?, endpoint.conditions.takes_new()))
        });
        let mut endpoints: Vec<(IpAddr, bool)> = firsts.collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        let slice_of = Slice { endpoints: endpoints.into(), ports: slice.ports.clone().into(), list };
        self.services.entry(service).or_default().insert(slice.metadata.uid.as_str().into(), slice_of);
    }

    /// Forgets a slice.
    pub(super) fn delete(&mut self, service: &ServiceName, uid: &str) {
        if let Some(slices) = self.services.get_mut(service) {
            slices.remove(uid);
            if slices.is_empty() {
                self.services.remove(service);
            }
        }
    }

    /// Forgets all slices that were not in list number `list`; returns the services that they belonged to.
    pub(super) fn keep_list(&mut self, list: u32) -> Vec<ServiceName> {
        let mut changed = Vec::new();
        self.services.retain(|service, slices| {
            let before = slices.len();
            slices.retain(|_, slice| slice.list == list);
            if slices.len() != before {
                changed.push(service.clone());
            }
            !slices.is_empty()
        });
        changed
    }

    /// Endpoints of a service at the ports that are meant, and whether new connections may go there; sorted. One that two
    /// slices have, as while it moves from one to the other, takes them if either says so.
    pub(super) fn endpoints(
        &self,
        service: &ServiceName,
        is_meant: impl Fn(&Port) -> bool,
    ) -> Vec<(SocketAddr, bool)> {
        let mut found = BTreeMap::new();
        for slice in self.services.get(service).into_iter().flat_map(HashMap::values) {
            for port in slice.ports.iter().filter(|port| is_meant(port)).filter_map(|port| port.port) {
                for (address, takes_new) in &slice.endpoints {
                    *found.entry(SocketAddr::new(*address, port)).or_insert(false) |= *takes_new;
                }
            }
        }
        found.into_iter().collect()
    }

    /// Ports that the endpoints of a service have.
    pub(super) fn ports(&self, service: &ServiceName) -> impl Iterator<Item = &Port> {
        self.services.get(service).into_iter().flat_map(HashMap::values).flat_map(|slice| &slice.ports)
    }

    /// Where a service with these ports leads now. What did not change since `before` keeps its age.
    pub(super) fn backends(
        &self,
        service: &ServiceName,
        ports: &[Port],
        before: Option<&Backends>,
        now: Wall,
    ) -> Backends {
        let mut ways = Vec::new();
        let mut endpoints = Vec::new();
        for slice in self.services.get(service).into_iter().flat_map(HashMap::values) {
            endpoints.extend(slice.endpoints.iter().map(|(address, _)| *address));
            for port in ports {
                let protocol = Backends::protocol(port);
                let belongs =
                    |target: &&Port| target.name == port.name && Backends::protocol(target) == protocol;
                for target in slice.ports.iter().filter(belongs) {
                    let (Some(port), Some(target_port)) = (port.port, target.port) else { continue };
                    let way = |(address, _): &(IpAddr, bool)| Way {
                        protocol,
                        port,
                        target_port,
                        address: key(*address),
                    };
                    ways.extend(slice.endpoints.iter().map(way));
                }
            }
        }
        ways.sort_unstable();
        ways.dedup();
        endpoints.sort_unstable();
        endpoints.dedup();
        let only = match *endpoints {
            [address] => Some(
                before
                    .and_then(|before| before.only)
                    .filter(|(same, _)| *same == address)
                    .unwrap_or((address, now)),
            ),
            _ => None,
        };
        Backends { ways: ways.into(), only }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::SliceEndpoint;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.into(), protocol: "TCP".into(), port: Some(number) }
    }

    fn slice(uid: &str, addresses: &[&str]) -> EndpointSlice {
        let endpoint = |address: &&str| SliceEndpoint {
            addresses: vec![(*address).to_owned()],
            ..SliceEndpoint::default()
        };
        let mut slice = EndpointSlice {
            endpoints: addresses.iter().map(endpoint).collect(),
            ports: vec![port("http", 8080), port("admin", 9000)],
            ..EndpointSlice::default()
        };
        slice.metadata.uid = uid.into();
        slice
    }

    #[test]
    fn ports_belong_together_by_name() {
        let web: ServiceName = ("shop".into(), "web".into());
        let mut slices = Slices::default();
        slices.apply(web.clone(), &slice("1", &["10.1.0.1", "10.1.0.2"]), 1);
        let backends = slices.backends(&web, &[port("http", 80)], None, Wall(0));
        let pod: IpAddr = "10.1.0.2".parse().unwrap();
        assert!(backends.lead_to(6, 80, pod, 8080));
        assert!(!backends.lead_to(6, 80, pod, 9000));
        assert!(!backends.lead_to(17, 80, pod, 8080));
        assert!(!backends.lead_to(6, 80, "10.1.0.3".parse().unwrap(), 8080));
        assert_eq!(backends.only(Wall(u64::MAX)), None);
    }

    #[test]
    fn the_only_endpoint_counts_once_it_has_been_alone_for_a_while() {
        let web: ServiceName = ("shop".into(), "web".into());
        let pod: IpAddr = "10.1.0.1".parse().unwrap();
        let mut slices = Slices::default();
        slices.apply(web.clone(), &slice("1", &["10.1.0.1"]), 1);
        let first = slices.backends(&web, &[port("http", 80)], None, Wall(1_000));
        let again = slices.backends(&web, &[port("http", 80)], Some(&first), Wall(5_000_000_000));
        let settled = Wall(1_000) + SETTLED;
        assert_eq!([Wall(1_000), settled].map(|start| again.only(start)), [None, Some(pod)]);

        slices.apply(web.clone(), &slice("2", &["10.1.0.2"]), 1);
        assert_eq!(slices.backends(&web, &[], Some(&again), settled).only(Wall(u64::MAX)), None);
    }

    #[test]
    fn slices_that_a_new_list_does_not_have_are_gone() {
        let web: ServiceName = ("shop".into(), "web".into());
        let mut slices = Slices::default();
        slices.apply(web.clone(), &slice("1", &["10.1.0.1"]), 1);
        slices.apply(web.clone(), &slice("2", &["10.1.0.2"]), 2);
        assert_eq!(slices.keep_list(2), std::slice::from_ref(&web));
        slices.delete(&web, "2");
        assert!(slices.services.is_empty());
    }
}
