//! Interfaces of a network namespace: what they are, what they count themselves, and when they come and go.
//!
//! All of it is read from rtnetlink, for one namespace at a time; nothing is changed, and reading needs no privilege.
//! Owns the messages and sockets; which interface is for what is decided in [`crate::role`].

mod message;
mod offload;
mod rtnetlink;
mod select;
mod watcher;

#[cfg(test)]
mod tests;

use std::{fmt, ops::Sub, sync::Arc};

use weir_flow::Role;
use weir_packet::Link;

pub use message::Malformed;
pub use offload::Offloads;
pub use rtnetlink::NetlinkError;
use rtnetlink::Rtnetlink;
pub use select::{UnknownInterface, matches, select};
pub use watcher::{LinkEvent, Watcher};

use crate::{flow::Device, netns::Netns};

/// One interface, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index: unique in its namespace, not reused until the numbers run out or somebody asks for it.
    pub index: u32,
    /// Its name; may change at any time.
    pub name: Arc<str>,
    /// What makes it.
    pub kind: Kind,
    /// What it is for.
    pub role: Role,
    /// Whether its packets have an Ethernet header.
    pub link: Link,
    /// Whether it is set up; says nothing of the carrier.
    pub up: bool,
    /// Index of the bridge, bond, team or VRF that it is a member of.
    pub master: Option<u32>,
    /// Index of the other end of a veth or netkit pair, or of the interface below a VLAN, macvlan or tunnel; counted in the
    /// namespace that `link_netnsid` names.
    pub link_index: Option<u32>,
    /// Local number of the namespace of `link_index`, if it is another one than ours.
    pub link_netnsid: Option<i32>,
    /// Bytes that a packet may have, without the link-layer header.
    pub mtu: u32,
    /// Name of the root queueing discipline, such as `noqueue` or `fq_codel`.
    pub qdisc: Option<Arc<str>>,
    /// Bus of the device, such as `pci` or `virtio` (known since 5.14).
    pub bus: Option<Arc<str>>,
    /// Whether an XDP program is attached, in any mode.
    pub xdp: bool,
    /// What it counted itself.
    pub stats: LinkStats,
}

impl From<&Interface> for Device {
    fn from(interface: &Interface) -> Self {
        Self {
            index: interface.index,
            name: Arc::clone(&interface.name),
            link: interface.link,
            role: interface.role,
        }
    }
}

/// What makes an interface. The names are the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `lo`.
    Loopback,
    /// A device of a driver: no kind of its own.
    Physical,
    /// One end of a pair.
    Veth,
    /// One end of a pair, driven by BPF (since 6.7).
    Netkit,
    /// A bridge.
    Bridge,
    /// A bond.
    Bond,
    /// A team.
    Team,
    /// An 802.1Q or 802.1ad child.
    Vlan,
    /// A macvlan or macvtap child.
    Macvlan,
    /// An ipvlan or ipvtap child.
    Ipvlan,
    /// A VXLAN tunnel.
    Vxlan,
    /// A Geneve tunnel.
    Geneve,
    /// GRE in any form, ERSPAN.
    Gre,
    /// IP in IPv4 or IPv6.
    Ipip,
    /// IPv6 in IPv4.
    Sit,
    /// `WireGuard`.
    Wireguard,
    /// A program's tunnel without Ethernet headers.
    Tun,
    /// A program's tunnel, or a virtual machine's wire, with Ethernet headers.
    Tap,
    /// A dummy.
    Dummy,
    /// An intermediate functional block.
    Ifb,
    /// Any other, by the kernel's name for it.
    Other(Arc<str>),
}

impl Kind {
    /// A name for people.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Loopback => "loopback",
            Self::Physical => "physical",
            Self::Veth => "veth",
            Self::Netkit => "netkit",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Team => "team",
            Self::Vlan => "vlan",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Wireguard => "wireguard",
            Self::Tun => "tun",
            Self::Tap => "tap",
            Self::Dummy => "dummy",
            Self::Ifb => "ifb",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The counters of `IFLA_STATS64` that matter here. They start when the interface is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// What was received.
    pub rx: DirectionStats,
    /// What was sent.
    pub tx: DirectionStats,
}

/// One direction of an interface's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionStats {
    /// Packets; what one packet is differs by driver, see [`crate::witness`].
    pub packets: u64,
    /// Bytes; whether they include the link-layer header differs too.
    pub bytes: u64,
    /// Packets that had no fault and were dropped for lack of room or by decision.
    pub dropped: u64,
    /// Packets with a fault.
    pub errors: u64,
}

impl Sub for DirectionStats {
    type Output = Self;

    /// Wraps, as the counters of some drivers do.
    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(earlier.packets),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
            dropped: self.dropped.wrapping_sub(earlier.dropped),
            errors: self.errors.wrapping_sub(earlier.errors),
        }
    }
}

impl Sub for LinkStats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { rx: self.rx - earlier.rx, tx: self.tx - earlier.tx }
    }
}

/// Reads all interfaces of a namespace, in the order of their index.
pub fn list(netns: &Netns) -> Result<Vec<Interface>, NetlinkError> {
    Interfaces::open(netns)?.list()
}

/// A connection to rtnetlink in one namespace, for those who ask more than once.
#[derive(Debug)]
pub struct Interfaces {
    rtnetlink: Rtnetlink,
}

impl Interfaces {
    /// Opens a connection. It stays in that namespace, wherever it is used.
    pub fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        Ok(Self { rtnetlink: Rtnetlink::open(netns)? })
    }

    /// Reads all interfaces, in the order of their index.
    pub fn list(&mut self) -> Result<Vec<Interface>, NetlinkError> {
        self.rtnetlink.interfaces()
    }

    /// Reads the counters of one interface. `None` if it is gone.
    pub fn stats(&mut self, index: u32) -> Result<Option<LinkStats>, NetlinkError> {
        self.rtnetlink.stats(index)
    }

    /// Reads what the kernel does to the packets of one interface. `None` if it is gone or does not say.
    pub fn offloads(&self, name: &str) -> Option<Offloads> {
        self.rtnetlink.offloads(name)
    }
}
