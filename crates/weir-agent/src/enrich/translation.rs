//! Pods behind the addresses of services.
//!
//! Where a pod sends, packets go to the address of a service; where they arrive, it has been replaced by that of a pod.
//! The client's address and port are the same in both places, and both are often seen on one node: the interface of the
//! client's pod shows the one, that of the other pod or the uplink shows the other. If the service leads to that pod
//! and port, the two are one connection. A service that has had one pod only for a while needs no second sight.
//!
//! What stays unknown without asking the kernel's connection tracking: connections whose other view is on another
//! node behind a tunnel that is not dissected, or in another tick, or has the client's address replaced, too.

use std::{net::IpAddr, sync::Arc};

use hashbrown::{HashMap, hash_map::Entry};
use weir_flow::{Detail, Endpoint, Record, Workload, WorkloadConfidence, WorkloadKind};

use crate::kubernetes::{Names, names::Span};

/// The client's end of a connection.
type Client = (u8, IpAddr, u16);

/// Where a connection arrives: address and port of a pod, and the pod.
type Arrival = (IpAddr, u16, Arc<Workload>);

/// Puts the pod behind a service into records whose end is known to be a service.
pub(super) fn pods_behind_services(records: &mut [Record], names: &Names) {
    let mut arrivals: HashMap<Client, Vec<Arrival>> = HashMap::new();
    for record in records.iter() {
        for (end, client) in ends(record) {
            if is(end, WorkloadKind::Service) {
                arrivals.entry(key(record, client)).or_default();
            }
        }
    }
    if arrivals.is_empty() {
        return;
    }
    for record in records.iter() {
        for (end, client) in ends(record) {
            if let Some(pod) = end.identity.workload.as_ref().filter(|_| is(end, WorkloadKind::Pod))
                && let Entry::Occupied(mut found) = arrivals.entry(key(record, client))
            {
                found.get_mut().push((end.address, end.port, Arc::clone(pod)));
            }
        }
    }
    for record in records.iter_mut() {
        let found = ends(record).map(|(end, client)| {
            is(end, WorkloadKind::Service).then(|| behind(record, end, client, &arrivals, names)).flatten()
        });
        for (end, pod) in [&mut record.source, &mut record.destination].into_iter().zip(found) {
            if pod.is_some() {
                end.identity.workload = pod;
                end.identity.confidence = Some(WorkloadConfidence::Translated);
            }
        }
    }
}

/// The pod behind the service at `end`.
fn behind(
    record: &Record,
    end: &Endpoint,
    client: &Endpoint,
    arrivals: &HashMap<Client, Vec<Arrival>>,
    names: &Names,
) -> Option<Arc<Workload>> {
    let backends = names.backends(end.identity.service.as_ref()?)?;
    let protocol = record.tuple.protocol();
    let seen = arrivals.get(&key(record, client)).into_iter().flatten();
    let arrived = seen
        .filter(|(address, port, _)| backends.lead_to(protocol, end.port, *address, *port))
        .map(|(_, _, pod)| pod)
        .next();
    if let Some(pod) = arrived {
        return Some(Arc::clone(pod));
    }
    let only = backends.only(record.start)?;
    let (pod, confidence) = names.by_address(only, Span { start: record.start, end: record.end }).ok()?;
    let is_sure = pod.kind == WorkloadKind::Pod && confidence == WorkloadConfidence::Address;
    is_sure.then(|| Arc::clone(pod))
}

/// Each end with the one opposite; none where there are no ports to tell connections apart.
fn ends(record: &Record) -> [(&Endpoint, &Endpoint); 2] {
    [(&record.source, &record.destination), (&record.destination, &record.source)]
}

fn is(end: &Endpoint, kind: WorkloadKind) -> bool {
    end.port != 0 && end.identity.workload.as_ref().is_some_and(|workload| workload.kind == kind)
}

fn key(record: &Record, client: &Endpoint) -> Client {
    debug_assert_eq!(record.detail, Detail::Flow, "sums of flows have no ports");
    (record.tuple.protocol(), client.address, client.port)
}
