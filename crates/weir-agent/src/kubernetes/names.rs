//! [`Names`]: who had an address, at one moment. A snapshot to look up in, without locks and without a clock.
//!
//! Every answer says how sure it is, and every missing one why. A pod that shares the addresses of its node is found by
//! its containers only; the address says the node.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use weir_flow::{Unknown, Wall, Workload, WorkloadConfidence};

use super::{backends::Backends, intervals::Holdings, shards::Shards};

/// What a list of the cluster is still good for after the API server was last heard of. A kubelet cannot start a pod
/// that it does not know of, and the address of one that is gone is seldom given away within this time.
const SURE_FOR: Duration = Duration::from_secs(10);

/// Everything with an address, by address, container and identifier. Clones are cheap, see [`Shards`].
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub(super) pods: Table,
    pub(super) nodes: Table,
    pub(super) services: Table,
    pub(super) containers: Shards<ContainerId, Contained>,
    pub(super) uids: Shards<PodUid, Arc<Workload>>,
    pub(super) backends: Shards<Arc<str>, Arc<Backends>>,
}

/// Addresses of one kind of things.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) addresses: Shards<u128, Holdings>,
    pub(super) state: ListState,
}

/// How good a list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListState {
    /// Not asked for, or the API server refuses it.
    #[default]
    Off,
    /// Not complete for the first time.
    Incomplete,
    /// Complete, and every change is heard of.
    Current,
    /// Complete, but nothing has been heard of since.
    LostSince(Wall),
}

/// First and last packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First packet.
    pub start: Wall,
    /// Last packet so far.
    pub end: Wall,
}

/// A container and the pod it is in.
#[derive(Clone, Debug)]
pub struct Contained {
    /// The pod.
    pub pod: Arc<Workload>,
    /// The container, with its name.
    pub container: Arc<weir_flow::Container>,
}

/// Identifier of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub [u8; 32]);

/// Identifier of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub u128);

impl Names {
    /// The pod, node or service that had `address` when the flow had its last packet; else the one that had it when
    /// the flow began, if nobody has had it since.
    pub fn by_address(
        &self,
        address: IpAddr,
        span: Span,
    ) -> Result<(&Arc<Workload>, WorkloadConfidence), Unknown> {
        if let Some(reason) = never_in_a_cluster(address) {
            return Err(reason);
        }
        let key = key(address);
        let mut is_known = false;
        for table in [&self.pods, &self.nodes, &self.services] {
            let Some(holdings) = table.addresses.get(&key) else { continue };
            is_known = true;
            if let Some(holder) = holdings.at(span.end).or_else(|| holdings.last_of(span.start)) {
                return Ok((holder, table.state.confidence(span.end)));
            }
        }
        Err(self.reason(is_known, span.end))
    }

    /// The pod of a container.
    pub fn by_container(&self, id: &ContainerId) -> Option<&Contained> {
        self.containers.get(id)
    }

    /// The pod with this identifier.
    pub fn by_pod_uid(&self, uid: PodUid) -> Option<&Arc<Workload>> {
        self.uids.get(&uid)
    }

    /// Where a service leads.
    pub fn backends(&self, service: &Workload) -> Option<&Backends> {
        self.backends.get(&service.uid).map(|backends| &**backends)
    }

    /// Addresses of pods, nodes and services.
    pub fn addresses(&self) -> usize {
        [&self.pods, &self.nodes, &self.services].map(|table| table.addresses.len()).iter().sum()
    }

    fn reason(&self, is_known: bool, time: Wall) -> Unknown {
        let states = [self.pods.state, self.nodes.state, self.services.state];
        if states.contains(&ListState::Incomplete) || self.pods.state == ListState::Off {
            Unknown::NotYetSynced
        } else if states.iter().any(|state| state.confidence(time) == WorkloadConfidence::Stale) {
            Unknown::ApiUnreachable
        } else if is_known {
            Unknown::NotAtThatTime
        } else {
            Unknown::NoPodForAddress
        }
    }
}

impl ListState {
    /// How sure what it says of `time` is.
    fn confidence(self, time: Wall) -> WorkloadConfidence {
        match self {
            Self::LostSince(since) if time > since + SURE_FOR => WorkloadConfidence::Stale,
            _ => WorkloadConfidence::Address,
        }
    }
}

impl Holdings {
    /// Who had the address at `time`, if nobody has had it since.
    fn last_of(&self, time: Wall) -> Option<&Arc<Workload>> {
        self.at(time).filter(|holder| self.last().is_some_and(|last| Arc::ptr_eq(last, holder)))
    }
}

impl ContainerId {
    /// Reads 64 hexadecimal digits, with or without the name of a runtime before them (`containerd://`).
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.rsplit_once("://").map_or(text, |(_, digits)| digits);
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = (hexadecimal(pair[0])? << 4) | hexadecimal(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PodUid {
    /// Reads 32 hexadecimal digits with hyphens or underscores among them, as the control groups of pods have them.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut number, mut digits) = (0_u128, 0);
        for letter in text.bytes().filter(|letter| !matches!(letter, b'-' | b'_')) {
            number = (number << 4) | u128::from(hexadecimal(letter)?);
            digits += 1;
        }
        (digits == 32).then_some(Self(number))
    }
}

/// Value of a hexadecimal digit.
fn hexadecimal(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// One number for any address: an IPv4 address is the IPv6 address that stands for it.
pub(super) fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Why an address of this sort never tells who it is.
fn never_in_a_cluster(address: IpAddr) -> Option<Unknown> {
    let (is_local, is_shared) = match address.to_canonical() {
        IpAddr::V4(address) => (
            address.is_loopback() || address.is_link_local(),
            address.is_multicast() || address.is_unspecified() || address.is_broadcast(),
        ),
        IpAddr::V6(address) => (
            address.is_loopback() || address.is_unicast_link_local(),
            address.is_multicast() || address.is_unspecified(),
        ),
    };
    match (is_local, is_shared) {
        (true, _) => Some(Unknown::LocalAddress),
        (_, true) => Some(Unknown::NotUnicast),
        _ => None,
    }
}
