//! From objects of the API to what is kept of them: descriptions, addresses, times.

use std::{net::IpAddr, sync::Arc, time::Duration};

use weir_flow::{Container, Wall, Workload, WorkloadKind};

use super::{owners::Owner, strings::Strings};
use crate::kubernetes::{
    backends::ServiceName,
    config::{Extract, Label},
    intervals::Since,
    names::ContainerId,
    objects::{ContainerStatus, Metadata, Node, Pod, Service, addresses, wall},
};

/// Condition of a pod whose sandbox has its network (since Kubernetes 1.29).
const NETWORK_READY: &str = "PodReadyToStartContainers";

/// The API tells times in whole seconds, cut off.
const SECOND: Duration = Duration::from_secs(1);

/// Makes descriptions, with their texts shared.
#[derive(Debug)]
pub(super) struct Describer {
    pub(super) strings: Strings,
    labels: Box<[Label]>,
}

impl Describer {
    pub(super) fn new(extract: &Extract) -> Self {
        Self { strings: Strings::default(), labels: extract.labels.clone().into() }
    }

    pub(super) fn pod(&mut self, pod: &Pod, (owner_kind, owner_name): Owner) -> Arc<Workload> {
        let strings = &mut self.strings;
        let labels = self.labels.iter().filter_map(|label| {
            let value = pod.metadata.labels.get(&label.key)?;
            Some((strings.share(label.tag_name.as_deref().unwrap_or(&label.key)), strings.share(value)))
        });
        let labels = labels.collect();
        Arc::new(Workload {
            kind: WorkloadKind::Pod,
            namespace: pod.metadata.namespace.as_deref().map(|namespace| strings.share(namespace)),
            name: pod.metadata.name.as_str().into(),
            uid: pod.metadata.uid.as_str().into(),
            owner_kind,
            owner_name,
            node: pod.spec.node_name.as_deref().map(|node| strings.share(node)),
            labels,
        })
    }

    /// Containers of a pod that the runtime has made, with their names.
    pub(super) fn containers(&mut self, pod: &Pod) -> Vec<(ContainerId, Arc<str>)> {
        let known = statuses(pod).filter_map(|status| Some((status.container_id.as_deref()?, &status.name)));
        known.filter_map(|(id, name)| Some((ContainerId::parse(id)?, self.strings.share(name)))).collect()
    }

    pub(super) fn node(&mut self, node: &Node) -> Workload {
        let name = self.strings.share(&node.metadata.name);
        Workload {
            kind: WorkloadKind::Node,
            namespace: None,
            name: Arc::clone(&name),
            uid: node.metadata.uid.as_str().into(),
            owner_kind: self.strings.share("Node"),
            owner_name: Arc::clone(&name),
            node: Some(name),
            labels: Box::default(),
        }
    }

    pub(super) fn service(&mut self, service: &Service) -> Workload {
        let (namespace, name) = self.service_name(&service.metadata);
        Workload {
            kind: WorkloadKind::Service,
            namespace: Some(namespace),
            name: Arc::clone(&name),
            uid: service.metadata.uid.as_str().into(),
            owner_kind: self.strings.share("Service"),
            owner_name: name,
            node: None,
            labels: Box::default(),
        }
    }

    pub(super) fn service_name(&mut self, service: &Metadata) -> ServiceName {
        (
            self.strings.share(service.namespace.as_deref().unwrap_or_default()),
            self.strings.share(&service.name),
        )
    }
}

/// The container, to be shared by the records of its flows.
pub(super) fn container(id: &ContainerId, name: Arc<str>) -> Arc<Container> {
    Arc::new(Container { id: id.to_string().into(), name: Some(name) })
}

/// A pod that is over keeps its addresses in the API, though they may be given away.
pub(super) fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Addresses that are the pod's own.
pub(super) fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    if pod.spec.host_network == Some(true) {
        return Vec::new();
    }
    let all = pod.status.pod_ips.iter().filter_map(|address| address.ip.as_deref());
    addresses(all.chain(pod.status.pod_ip.as_deref()))
}

pub(super) fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let is_address = |kind: &str| matches!(kind, "InternalIP" | "ExternalIP");
    let known = node.status.addresses.iter().filter(|address| is_address(&address.r#type));
    addresses(known.map(|address| address.address.as_str()))
}

pub(super) fn service_addresses(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let own = spec.cluster_ips.iter().chain(&spec.cluster_ip).chain(&spec.external_ips).map(String::as_str);
    let balanced = service.status.load_balancer.ingress.iter().filter_map(|ingress| ingress.ip.as_deref());
    addresses(own.chain(balanced))
}

/// Since when a pod has its addresses: not before its node accepted it, and certainly when its network was ready, or
/// its first container ran, or when it was seen to have them.
pub(super) fn since(pod: &Pod, now: Wall) -> Since {
    let accepted = pod.status.start_time.as_deref().and_then(wall);
    let ready = pod
        .status
        .conditions
        .iter()
        .find(|condition| condition.r#type == NETWORK_READY && condition.status == "True")
        .and_then(|condition| condition.last_transition_time.as_deref())
        .and_then(wall);
    let started = || statuses(pod).filter_map(started).min();
    let sure = ready.or_else(started).unwrap_or(now).min(now);
    let earliest = accepted.or_else(|| pod.metadata.created()).unwrap_or(sure).min(sure);
    Since { earliest, sure }
}

/// Since when nodes and services have their addresses.
pub(super) fn since_creation(metadata: &Metadata, now: Wall) -> Since {
    Since::exactly(metadata.created().unwrap_or(now).min(now))
}

/// When a pod that is gone at `now` lost its addresses: when the last of its containers was over, as far as is known.
pub(super) fn end(pod: &Pod, now: Wall) -> Wall {
    let mut last = None;
    for status in statuses(pod) {
        let finished = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        let Some(finished) = finished.and_then(|moments| wall(moments.finished_at.as_deref()?)) else {
            // It may have run until now.
            return now;
        };
        last = last.max(Some(finished + SECOND));
    }
    last.unwrap_or(now).min(now)
}

fn started(status: &ContainerStatus) -> Option<Wall> {
    let state = status.state.as_ref()?;
    let moments = state.running.as_ref().or(state.terminated.as_ref())?;
    moments.started_at.as_deref().and_then(wall)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = &pod.status;
    status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses)
}
