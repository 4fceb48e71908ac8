//! What interfaces are for, and which of them are counted when the user names none.
//!
//! Pure: decides from facts that others read. A packet that crosses a node passes several interfaces; roles say which of
//! them stand for the same traffic, so that points of one role can be summed and points of different roles never are.

use weir_flow::Role;

use crate::{
    flow::Directions,
    interface::{Interface, Kind},
};

/// Kinds without a variant of their own whose packets appear a second time, wrapped, on an uplink.
const OTHER_TUNNELS: [&str; 8] = ["amt", "bareudp", "gtp", "l2tp", "ppp", "vti", "vti6", "xfrm"];
/// A modem: a way out like a network card, although it has a kind.
const MODEM: &str = "wwan";

/// What addresses and routes say of interfaces. Needed only where [`depends_on_surroundings`] says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Indexes of the interfaces that lead to the rest of the world, by IPv4 or IPv6.
    pub default_route: Vec<u32>,
    /// Indexes of the interfaces with an address of global scope whose network holds more than that address.
    pub on_link: Vec<u32>,
}

/// Whether the role of this interface depends on addresses and routes.
///
/// It does for a free end of a pair whose other end is in another namespace. Seen from a node that is the edge of a pod;
/// seen from within the pod it is the only way out, and nothing in the interface itself tells the two apart.
pub fn depends_on_surroundings(interface: &Interface) -> bool {
    matches!(interface.kind, Kind::Veth | Kind::Netkit)
        && interface.link_netnsid.is_some()
        && interface.master.is_none()
}

/// Sets the roles of all interfaces of a namespace.
///
/// A free end of a pair into another namespace is an uplink if it has the default route (a container, a node that is itself
/// a container). Without any uplink, those are uplinks that have an address in a network of more than one address (an
/// internal network without a default route; the node's ends of pods have none, or one of /32). All others are pod edges.
pub fn assign(interfaces: &mut [&mut Interface], surroundings: &Surroundings) {
    let roles: Vec<Role> = interfaces
        .iter()
        .map(|interface| {
            let master = interface.master.and_then(|index| {
                interfaces.iter().find(|other| other.index == index).map(|other| &other.kind)
            });
            role(interface, master, surroundings)
        })
        .collect();
    let has_uplink = roles.contains(&Role::Uplink);
    for (interface, role) in interfaces.iter_mut().zip(roles) {
        let is_only_way_out = !has_uplink
            && depends_on_surroundings(interface)
            && surroundings.on_link.contains(&interface.index);
        interface.role = if is_only_way_out { Role::Uplink } else { role };
    }
}

/// The role of one interface, given the kind of its master. What a bond, a team or a combined card (a virtual function below
/// the card that speaks for it) is made of is skipped, as is what stands on an interface that we see: their packets pass the
/// other one too. Members of bridges are not: bridges are not counted.
fn role(interface: &Interface, master: Option<&Kind>, surroundings: &Surroundings) -> Role {
    if matches!(master, Some(Kind::Bond | Kind::Team | Kind::Physical)) {
        return Role::Other;
    }
    let is_elsewhere = interface.link_netnsid.is_some();
    match &interface.kind {
        Kind::Loopback => Role::Loopback,
        Kind::Bridge => Role::Bridge,
        Kind::Physical | Kind::Bond | Kind::Team => Role::Uplink,
        Kind::Veth | Kind::Netkit if !is_elsewhere => Role::Other,
        Kind::Veth | Kind::Netkit => {
            let leads_out =
                interface.master.is_none() && surroundings.default_route.contains(&interface.index);
            if leads_out { Role::Uplink } else { Role::PodEdge }
        }
        Kind::Vlan | Kind::Macvlan | Kind::Ipvlan if is_elsewhere => Role::Uplink,
        // A virtual machine's wire ends at a bridge, a program's tunnel does not.
        Kind::Tap if interface.master.is_some() => Role::PodEdge,
        Kind::Tap
        | Kind::Tun
        | Kind::Vxlan
        | Kind::Geneve
        | Kind::Gre
        | Kind::Ipip
        | Kind::Sit
        | Kind::Wireguard => Role::Tunnel,
        Kind::Other(name) if OTHER_TUNNELS.contains(&&**name) => Role::Tunnel,
        Kind::Other(name) if **name == *MODEM => Role::Uplink,
        Kind::Vlan | Kind::Macvlan | Kind::Ipvlan | Kind::Dummy | Kind::Ifb | Kind::Other(_) => Role::Other,
    }
}

/// Which directions of an interface of this role are counted when the user names none. `None` if it is not.
///
/// What loopback sends it receives at once, so one direction is all of it.
pub const fn default_directions(role: Role) -> Option<Directions> {
    match role {
        Role::PodEdge | Role::Uplink | Role::Tunnel => Some(Directions::Both),
        Role::Loopback => Some(Directions::Egress),
        Role::Bridge | Role::Other => None,
    }
}

/// Indexes and directions of what is counted when the user names nothing, uplinks first: attaching takes its time.
pub fn default_points(interfaces: &[Interface]) -> Vec<(u32, Directions)> {
    let mut counted: Vec<_> = interfaces
        .iter()
        .filter_map(|interface| Some((interface, default_directions(interface.role)?)))
        .collect();
    counted.sort_by_key(|(interface, _)| interface.role != Role::Uplink);
    counted.into_iter().map(|(interface, directions)| (interface.index, directions)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_packet::Link;

    use super::*;
    use crate::interface::LinkStats;

    fn interface(index: u32, name: &str, kind: Kind) -> Interface {
        Interface {
            index,
            name: Arc::from(name),
            kind,
            role: Role::Other,
            link: Link::Ethernet,
            up: true,
            master: None,
            link_index: None,
            link_netnsid: None,
            mtu: 1500,
            qdisc: None,
            bus: None,
            xdp: false,
            stats: LinkStats::default(),
        }
    }

    fn below(mut interface: Interface, master: u32) -> Interface {
        interface.master = Some(master);
        interface
    }

    fn elsewhere(mut interface: Interface) -> Interface {
        interface.link_netnsid = Some(0);
        interface
    }

    fn other(name: &str) -> Kind {
        Kind::Other(Arc::from(name))
    }

    fn check(mut interfaces: Vec<Interface>, surroundings: &Surroundings, expected: &[(&str, Role)]) {
        assign(&mut interfaces.iter_mut().collect::<Vec<_>>(), surroundings);
        let roles: Vec<_> = interfaces.iter().map(|interface| (&*interface.name, interface.role)).collect();
        assert_eq!(roles, expected);
    }

    #[test]
    fn each_kind_has_its_role() {
        for (kind, expected) in [
            (Kind::Loopback, Role::Loopback),
            (Kind::Physical, Role::Uplink),
            (Kind::Bridge, Role::Bridge),
            (Kind::Bond, Role::Uplink),
            (Kind::Team, Role::Uplink),
            (Kind::Veth, Role::Other),
            (Kind::Netkit, Role::Other),
            (Kind::Vlan, Role::Other),
            (Kind::Macvlan, Role::Other),
            (Kind::Ipvlan, Role::Other),
            (Kind::Vxlan, Role::Tunnel),
            (Kind::Geneve, Role::Tunnel),
            (Kind::Gre, Role::Tunnel),
            (Kind::Ipip, Role::Tunnel),
            (Kind::Sit, Role::Tunnel),
            (Kind::Wireguard, Role::Tunnel),
            (Kind::Tun, Role::Tunnel),
            (Kind::Tap, Role::Tunnel),
            (Kind::Dummy, Role::Other),
            (Kind::Ifb, Role::Other),
            (other("ppp"), Role::Tunnel),
            (other("wwan"), Role::Uplink),
            (other("vrf"), Role::Other),
        ] {
            check(vec![interface(1, "x", kind)], &Surroundings::default(), &[("x", expected)]);
        }
    }

    #[test]
    fn what_an_uplink_is_made_of_is_skipped() {
        check(
            vec![
                interface(1, "bond0", Kind::Bond),
                below(interface(2, "eth0", Kind::Physical), 1),
                below(interface(3, "eth1", Kind::Veth), 1),
                interface(4, "eth2", Kind::Physical),
                below(interface(5, "eth3", Kind::Physical), 4),
                interface(6, "bond0.7", Kind::Vlan),
            ],
            &Surroundings::default(),
            &[
                ("bond0", Role::Uplink),
                ("eth0", Role::Other),
                ("eth1", Role::Other),
                ("eth2", Role::Uplink),
                ("eth3", Role::Other),
                ("bond0.7", Role::Other),
            ],
        );
    }

    #[test]
    fn members_of_a_bridge_are_what_they_are() {
        check(
            vec![
                interface(1, "br0", Kind::Bridge),
                below(interface(2, "eth0", Kind::Physical), 1),
                below(elsewhere(interface(3, "pod", Kind::Veth)), 1),
                below(interface(4, "vm", Kind::Tap), 1),
                below(interface(5, "patch", Kind::Veth), 1),
            ],
            &Surroundings::default(),
            &[
                ("br0", Role::Bridge),
                ("eth0", Role::Uplink),
                ("pod", Role::PodEdge),
                ("vm", Role::PodEdge),
                ("patch", Role::Other),
            ],
        );
    }

    #[test]
    fn the_pair_with_the_default_route_is_the_uplink_of_a_containerised_node() {
        check(
            vec![
                interface(1, "lo", Kind::Loopback),
                elsewhere(interface(2, "eth0", Kind::Veth)),
                elsewhere(interface(3, "pod1", Kind::Veth)),
                elsewhere(interface(4, "pod2", Kind::Netkit)),
            ],
            &Surroundings { default_route: vec![2], on_link: vec![2, 3] },
            &[
                ("lo", Role::Loopback),
                ("eth0", Role::Uplink),
                ("pod1", Role::PodEdge),
                ("pod2", Role::PodEdge),
            ],
        );
    }

    #[test]
    fn without_a_default_route_a_pair_with_a_network_is_the_uplink() {
        check(
            vec![elsewhere(interface(1, "eth0", Kind::Veth)), elsewhere(interface(2, "pod", Kind::Veth))],
            &Surroundings { default_route: vec![], on_link: vec![1] },
            &[("eth0", Role::Uplink), ("pod", Role::PodEdge)],
        );
        check(
            vec![elsewhere(interface(1, "veth0", Kind::Veth)), interface(2, "eth0", Kind::Physical)],
            &Surroundings { default_route: vec![], on_link: vec![1] },
            &[("veth0", Role::PodEdge), ("eth0", Role::Uplink)],
        );
    }

    #[test]
    fn a_child_of_an_interface_that_we_do_not_see_is_an_uplink() {
        for kind in [Kind::Vlan, Kind::Macvlan, Kind::Ipvlan] {
            check(
                vec![elsewhere(interface(1, "eth0", kind))],
                &Surroundings::default(),
                &[("eth0", Role::Uplink)],
            );
        }
    }

    #[test]
    fn by_default_edges_uplinks_and_tunnels_are_counted_both_ways_and_loopback_one_way() {
        let mut interfaces: Vec<Interface> = Role::ALL
            .iter()
            .zip(1..)
            .map(|(role, index)| Interface { role: *role, ..interface(index, role.as_str(), Kind::Dummy) })
            .collect();
        interfaces.sort_by_key(|interface| interface.index);
        let named: Vec<_> = default_points(&interfaces)
            .into_iter()
            .map(|(index, directions)| (interfaces[index as usize - 1].role, directions))
            .collect();
        assert_eq!(
            named,
            [
                (Role::Uplink, Directions::Both),
                (Role::PodEdge, Directions::Both),
                (Role::Tunnel, Directions::Both),
                (Role::Loopback, Directions::Egress),
            ]
        );
    }
}
