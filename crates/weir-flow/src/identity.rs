//! Who is at an end of a flow: a pod, a service or a node, the container, and a domain name, as far as somebody could say.
//!
//! Plain data that the agent's enrichers fill in after aggregation; nothing here looks anything up. Everything is
//! shared: a hundred thousand records of one pod point to one [`Workload`].

use std::sync::Arc;

/// Who is at an end. Everything is absent where nobody looked (no cluster, a plain `weir watch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The pod, service or node; of an address of a service, the pod behind it where that is known.
    pub workload: Option<Arc<Workload>>,
    /// How `workload` was found. Present exactly if it is.
    pub confidence: Option<WorkloadConfidence>,
    /// The service that has the address of this end. `workload` is then this service too, or a pod behind it.
    pub service: Option<Arc<Workload>>,
    /// The container that owns the socket of this end.
    pub container: Option<Arc<Container>>,
    /// The domain name that led to the address of this end: somebody asked for it and got the address, before the flow
    /// began.
    pub dns_name: Option<Arc<str>>,
    /// Why there is no workload, where one was looked for.
    pub unknown: Option<Unknown>,
}

/// Something in a cluster that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its namespace; nodes have none.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
    /// Identifier given by the API server; never given twice. Empty where it was not asked for.
    pub uid: Arc<str>,
    /// Kind of what it belongs to in the end: `Deployment`, `StatefulSet`, `CronJob`, …; its own kind if to nothing.
    pub owner_kind: Arc<str>,
    /// Name of what it belongs to in the end; its own name if to nothing.
    pub owner_name: Arc<str>,
    /// The node it runs on; of a node, itself; services have none.
    pub node: Option<Arc<str>>,
    /// The labels that were asked for, as (name to show, value), in the order in which they were asked for.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
}

/// What a [`Workload`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// A pod.
    Pod,
    /// A service, known by one of its own addresses.
    Service,
    /// A node: also what is said of a pod that shares its address, unless the socket tells which pod.
    Node,
}

/// A container on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its identifier, without the name of the runtime.
    pub id: Box<str>,
    /// Its name within the pod, where the pod is known.
    pub name: Option<Arc<str>>,
}

/// How a workload was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadConfidence {
    /// The socket belongs to a container of this pod.
    Proven,
    /// It had the address at the time of the flow.
    Address,
    /// The address is that of a service. This pod is behind it: the same connection was seen with the address of the
    /// pod, or the service had no other pod.
    Translated,
    /// It had the address when the API server was last heard of, which is too long ago to be sure.
    Stale,
}

/// Why there is no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unknown {
    /// The first list of the cluster is not complete.
    NotYetSynced,
    /// Nothing in the cluster has the address or had it lately: it is outside, or belongs to something unlisted.
    NoPodForAddress,
    /// The address was given to pods, but to none at the time of the flow.
    NotAtThatTime,
    /// Nothing had the address when the API server was last heard of, which is too long ago to be sure.
    ApiUnreachable,
    /// A loopback or link-local address, which means something else on every machine, and the socket is not known.
    LocalAddress,
    /// Multicast, broadcast or unspecified.
    NotUnicast,
    /// The record is the sum of many flows.
    Folded,
}

impl WorkloadKind {
    /// `pod`, `service` or `node`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Node => "node",
        }
    }
}

impl WorkloadConfidence {
    /// Every one, the surest first.
    pub const ALL: [Self; 4] = [Self::Proven, Self::Address, Self::Translated, Self::Stale];

    /// The name shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Address => "address",
            Self::Translated => "translated",
            Self::Stale => "stale",
        }
    }
}

impl Unknown {
    /// Every reason, in the order of their numbers (`reason as usize`).
    pub const ALL: [Self; 7] = [
        Self::NotYetSynced,
        Self::NoPodForAddress,
        Self::NotAtThatTime,
        Self::ApiUnreachable,
        Self::LocalAddress,
        Self::NotUnicast,
        Self::Folded,
    ];

    /// The name shown to users and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYetSynced => "not-yet-synced",
            Self::NoPodForAddress => "no-pod-for-address",
            Self::NotAtThatTime => "not-at-that-time",
            Self::ApiUnreachable => "api-unreachable",
            Self::LocalAddress => "local-address",
            Self::NotUnicast => "not-unicast",
            Self::Folded => "folded",
        }
    }
}
