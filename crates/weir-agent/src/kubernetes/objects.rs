//! What is read of the objects of the API server: a fraction of each, so that a page of pods costs little to take in.
//!
//! Everything is optional here, as it is there. Times are texts until somebody needs them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer};
use weir_flow::Wall;

/// What every object has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its identifier.
    pub uid: String,
    /// Which state of it this is.
    pub resource_version: String,
    /// When it was made.
    pub creation_timestamp: Option<String>,
    /// Its labels.
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it belongs to.
    #[serde(deserialize_with = "null_is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// One of those that an object belongs to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub uid: String,
    /// Whether it is the one that controls the object.
    pub controller: Option<bool>,
}

/// An object of which only the metadata is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Owned {
    /// Its metadata.
    pub metadata: Metadata,
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its metadata.
    pub metadata: Metadata,
    /// What it should be.
    pub spec: PodSpec,
    /// What it is.
    pub status: PodStatus,
}

/// What a pod should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is on.
    pub node_name: Option<String>,
    /// Whether it uses the addresses of its node.
    pub host_network: Option<bool>,
}

/// What a pod is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Running`, `Succeeded`, …
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs", deserialize_with = "null_is_empty")]
    pub pod_ips: Vec<Ip>,
    /// When the node accepted it.
    pub start_time: Option<String>,
    /// What holds of it.
    #[serde(deserialize_with = "null_is_empty")]
    pub conditions: Vec<Condition>,
    /// Its containers.
    #[serde(deserialize_with = "null_is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Those that run before.
    #[serde(deserialize_with = "null_is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Those put in for debugging.
    #[serde(deserialize_with = "null_is_empty")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// An address in a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// The address.
    pub ip: Option<String>,
}

/// Something that holds since a time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Since when.
    pub last_transition_time: Option<String>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Runtime and identifier, as in `containerd://0123…`.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    /// What it does.
    pub state: Option<ContainerState>,
}

/// What a container does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It runs.
    pub running: Option<Moments>,
    /// It is over.
    pub terminated: Option<Moments>,
}

/// Beginning and end of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Moments {
    /// Beginning.
    pub started_at: Option<String>,
    /// End.
    pub finished_at: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its metadata.
    pub metadata: Metadata,
    /// What it is.
    pub status: NodeStatus,
}

/// What a node is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Addresses and names.
    #[serde(deserialize_with = "null_is_empty")]
    pub addresses: Vec<NodeAddress>,
}

/// An address or a name of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    pub r#type: String,
    /// The address or name.
    pub address: String,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its metadata.
    pub metadata: Metadata,
    /// What it should be.
    pub spec: ServiceSpec,
    /// What it is.
    pub status: ServiceStatus,
}

/// What a service should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Its first address, or `None` if it has none.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_empty")]
    pub cluster_ips: Vec<String>,
    /// Addresses that lead to it from outside, as somebody else takes care.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_empty")]
    pub external_ips: Vec<String>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<Port>,
}

/// What a service is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Its load balancer.
    pub load_balancer: LoadBalancer,
}

/// A load balancer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// Its addresses.
    #[serde(deserialize_with = "null_is_empty")]
    pub ingress: Vec<Ip>,
}

/// A port of a service or of its endpoints.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct Port {
    /// Name by which the port of the service and that of the endpoints belong together.
    #[serde(deserialize_with = "null_is_empty")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; TCP if it is not said.
    #[serde(deserialize_with = "null_is_empty")]
    pub protocol: String,
    /// Its number.
    pub port: Option<u16>,
}

/// Some of the endpoints of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    /// Its metadata; a label tells the service.
    pub metadata: Metadata,
    /// Where the service leads.
    #[serde(deserialize_with = "null_is_empty")]
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports of all these endpoints.
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<Port>,
}

/// One endpoint of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SliceEndpoint {
    /// Its addresses, of which only the first counts.
    #[serde(deserialize_with = "null_is_empty")]
    pub addresses: Vec<String>,
    /// What holds of it.
    #[serde(deserialize_with = "null_is_empty")]
    pub conditions: EndpointConditions,
}

/// What holds of an endpoint; what is not said is to be taken for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Whether it should get new connections.
    pub ready: Option<bool>,
    /// Whether it is on its way out.
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Whether new connections may go there.
    pub(super) fn takes_new(self) -> bool {
        self.ready != Some(false) && self.terminating != Some(true)
    }
}

/// One page of a list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Page<T> {
    #[serde(default)]
    pub(super) metadata: PageMetadata,
    #[serde(
        default = "Vec::new",
        deserialize_with = "null_is_empty",
        bound(deserialize = "T: Deserialize<'de>")
    )]
    pub(super) items: Vec<T>,
}

/// What a page says of the list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMetadata {
    /// Where a watch begins that misses nothing.
    pub(super) resource_version: String,
    /// Where the next page begins.
    pub(super) r#continue: Option<String>,
}

/// An object that the API server may list and watch.
pub(super) trait Listed {
    fn metadata(&self) -> &Metadata;
}

macro_rules! listed {
    ($($name:ty),*) => {
        $(impl Listed for $name {
            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
        })*
    };
}

listed!(Pod, Node, Service, EndpointSlice, Owned);

impl Metadata {
    /// The one that controls the object.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }

    /// When it was made.
    pub(super) fn created(&self) -> Option<Wall> {
        self.creation_timestamp.as_deref().and_then(wall)
    }
}

/// Moment of a text as the API server writes it (RFC 3339).
pub(super) fn wall(text: &str) -> Option<Wall> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok().map(Wall)
}

/// Addresses of texts, without those that are none (`None` of headless services, host names).
pub(super) fn addresses<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
