//! Wires between namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Namespace;

/// How the two ends learn each other's link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// Permanent entries, ARP and neighbour discovery off: the wire carries only what the test sends.
    Static,
    /// ARP and neighbour discovery as usual: a few packets come on top, at any time.
    Resolved,
}

/// A veth pair whose ends are up and have addresses.
#[derive(Clone, Debug)]
pub struct Veth {
    /// First end: host 1 of both networks.
    pub left: VethEnd,
    /// Second end: host 2 of both networks.
    pub right: VethEnd,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct VethEnd {
    /// Where it is.
    pub namespace: Namespace,
    /// Interface name.
    pub name: String,
    /// Interface index in its namespace.
    pub index: u32,
    /// Link-layer address, as in `02:00:00:00:01:01`.
    pub mac: String,
    /// Address in `10.99.N.0/24`.
    pub ipv4: Ipv4Addr,
    /// Address in `fd99:N::/64`.
    pub ipv6: Ipv6Addr,
}

impl VethEnd {
    /// The IPv4 or the IPv6 address.
    pub const fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { IpAddr::V6(self.ipv6) } else { IpAddr::V4(self.ipv4) }
    }
}

impl Veth {
    /// Connects two namespaces by `left` and `right`, names of interfaces that do not exist there yet. `network` is N
    /// in the addresses 10.99.N.1, 10.99.N.2, `fd99:N::1` and `fd99:N::2`; one namespace uses each number once.
    pub fn connect(
        (left, left_name): (&Namespace, &str),
        (right, right_name): (&Namespace, &str),
        network: u8,
        neighbours: Neighbours,
    ) -> Self {
        let mac = |host: u8| format!("02:00:00:00:{network:02x}:{host:02x}");
        left.ip(&format!(
            "link add {left_name} address {} type veth peer name {right_name} address {} netns {}",
            mac(1),
            mac(2),
            right.path()
        ));
        let end = |namespace: &Namespace, name: &str, host: u8| VethEnd {
            namespace: namespace.clone(),
            name: name.to_owned(),
            index: namespace.run(|| nix::net::if_::if_nametoindex(name).expect("we just made it")),
            mac: mac(host),
            ipv4: Ipv4Addr::new(10, 99, network, host),
            ipv6: Ipv6Addr::new(0xfd99, u16::from(network), 0, 0, 0, 0, 0, u16::from(host)),
        };
        let veth = Self { left: end(left, left_name, 1), right: end(right, right_name, 2) };
        configure(&veth.left, &veth.right, neighbours);
        configure(&veth.right, &veth.left, neighbours);
        for end in [&veth.left, &veth.right] {
            end.namespace.until_it_sends(&end.name);
        }
        veth
    }

    /// Two new namespaces, connected by `left0` and `right0` with static neighbours.
    pub fn new() -> Self {
        Self::connect((&Namespace::new(), "left0"), (&Namespace::new(), "right0"), 1, Neighbours::Static)
    }
}

impl Default for Veth {
    fn default() -> Self {
        Self::new()
    }
}

/// Without ARP (a flag of the interface) the kernel joins no solicited-node group, so it sends no MLD report either.
fn configure(end: &VethEnd, peer: &VethEnd, neighbours: Neighbours) {
    let VethEnd { namespace, name, ipv4, ipv6, .. } = end;
    if neighbours == Neighbours::Static {
        namespace.ip(&format!("link set {name} arp off"));
    }
    namespace.ip(&format!("link set {name} up"));
    namespace.ip(&format!("address add {ipv4}/24 dev {name}"));
    namespace.ip(&format!("address add {ipv6}/64 dev {name} nodad"));
    if neighbours == Neighbours::Static {
        for address in [IpAddr::V4(peer.ipv4), IpAddr::V6(peer.ipv6)] {
            namespace.ip(&format!("neigh replace {address} lladdr {} nud permanent dev {name}", peer.mac));
        }
    }
}
