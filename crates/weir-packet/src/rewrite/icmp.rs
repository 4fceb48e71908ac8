//! [`IcmpPlan`]: the translation of an ICMP error, which repeats the beginning of the packet that it is about.

use super::{
    checksum::Sum,
    layout::Layout,
    plan::{Target, address_change, memory, swapped},
};

/// What to write into an ICMP error, and how its checksum changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpPlan {
    /// Whether the error itself gets another address: it comes from, or goes to, the end that is translated.
    pub changes_outer: bool,
    /// Where that goes.
    pub outer_address_at: u32,
    /// The outer IPv4 header checksum that then is right.
    pub outer_ip_check: u16,
    /// What the checksum of ICMPv6 changes by because of it (RFC 4443 2.3); of ICMP for IPv4, which covers no address,
    /// nothing.
    pub pseudo: Sum,
    /// Where the address within goes.
    pub inner_address_at: u32,
    /// The IPv4 header checksum within.
    pub inner_ip_check: u16,
    /// Both ports within.
    pub inner_ports: u32,
    /// The transport checksum within, if [`Layout::has_check`].
    pub inner_check: u16,
    /// What the ICMP checksum changes by because of everything within.
    pub message: Sum,
}

impl IcmpPlan {
    /// What translating an error takes, if packets that go its way are translated to `target`.
    ///
    /// The packet within went the other way: its other end gets the address, and its ports are exchanged.
    #[inline(always)]
    pub fn new(outer: &Layout, inner: &Layout, target: &Target) -> Self {
        let within = Target { side: target.side.opposite(), ports: swapped(target.ports), ..*target };
        let is_source = target.side == super::Side::Source;
        let (outer_end, inner_end) =
            if is_source { (outer.source, inner.destination) } else { (outer.destination, inner.source) };
        let changes_outer = outer_end[0] == inner_end[0] && outer_end[1] == inner_end[1];
        let (outer_change, outer_address_at) = address_change(outer, target);
        let (address, inner_address_at) = address_change(inner, &within);
        let ports = Sum::ZERO.replace(memory(inner.ports), memory(within.ports));
        let inner_ip_check = address.applied_to(inner.ip_check);
        let inner_check = checked(inner, address.plus(ports));
        let mut message = address.plus(ports);
        if inner.is_ipv6 == 0 {
            message = message.replace_short(inner.ip_check, inner_ip_check);
        }
        if inner.has_check != 0 {
            message = message.replace_short(inner.transport_check, inner_check);
        }
        Self {
            changes_outer,
            outer_address_at,
            outer_ip_check: outer_change.applied_to(outer.ip_check),
            pseudo: if changes_outer && outer.is_ipv6 != 0 { outer_change } else { Sum::ZERO },
            inner_address_at,
            inner_ip_check,
            inner_ports: within.ports,
            inner_check,
            message,
        }
    }
}

/// The transport checksum within after a change. A sum of 0 is written as all ones by UDP (RFC 768).
#[inline(always)]
fn checked(inner: &Layout, change: Sum) -> u16 {
    match change.applied_to(inner.transport_check) {
        0 if inner.protocol == crate::protocol::UDP => 0xffff,
        check => check,
    }
}
