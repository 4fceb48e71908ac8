//! Observation points: where packets were seen.

use std::{fmt, sync::Arc};

/// Which way a packet passed the interface, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received by the interface.
    Ingress,
    /// Sent by the interface.
    Egress,
}

impl Direction {
    /// Both, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// `ingress` or `egress`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What an interface is for. Points of one role are summed, points of different roles never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The node's side of a pod's or container's interface.
    PodEdge,
    /// The node's way out: a network card, a bond, a team.
    Uplink,
    /// A tunnel device: VXLAN, Geneve, GRE, WireGuard, tun.
    Tunnel,
    /// The loopback interface.
    Loopback,
    /// A bridge.
    Bridge,
    /// Anything else (dummy, ifb, a VLAN child, a member of a bond).
    Other,
}

impl Role {
    /// Every role, in the order in which totals prefer them.
    pub const ALL: [Self; 6] =
        [Self::PodEdge, Self::Uplink, Self::Tunnel, Self::Loopback, Self::Bridge, Self::Other];

    /// The name shown to users, such as `pod-edge`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PodEdge => "pod-edge",
            Self::Uplink => "uplink",
            Self::Tunnel => "tunnel",
            Self::Loopback => "loopback",
            Self::Bridge => "bridge",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Number of an observation point, given out once in the life of the process and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId(pub u32);

/// Place and direction in which packets are counted: (network namespace, interface, direction).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its number.
    pub id: PointId,
    /// Name of the network namespace if it is not our own.
    pub netns: Option<Arc<str>>,
    /// Index of the interface in its namespace; in `weir replay`, the number of the interface in the file.
    pub ifindex: u32,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Direction.
    pub direction: Direction,
    /// What the interface is for.
    pub role: Role,
}
