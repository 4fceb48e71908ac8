//! ICMP errors about packets of connections: who receives one must find the packet in it that it sent itself.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use weir_common::redirect::Reason;
use weir_ebpf::skb::Skb;
use weir_packet::{
    protocol,
    rewrite::{IcmpPlan, Layout, Target, swapped},
};

use crate::{
    connections, count,
    keys::{self, Way},
    maps::scratch,
    route,
    write::{
        self, IPV4_CHECK, IPV6, PSEUDO_HEADER, TCP_CHECK, UDP_CHECK, change_check, store, store_address,
    },
};

/// Offset of the checksum in an ICMP header.
const ICMP_CHECK: u32 = 2;

/// Translates the ICMP error whose layouts are in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_icmp(context: *mut __sk_buff, hint: u64) -> i32 {
    let (skb, way) = (Skb::new(context), Way::from_bits(hint));
    let Some(scratch) = scratch() else { return TC_ACT_UNSPEC };
    if scratch.inner.tcp_flags == 0 {
        count::reason(0, Reason::IcmpUnreadable);
        return TC_ACT_UNSPEC;
    }
    // The packet within went the other way: reversed, it has the key of what goes this way.
    let inner = &scratch.inner;
    scratch.key[0] = inner.destination[0];
    scratch.key[1] = inner.destination[1];
    scratch.key[2] = inner.source[0];
    scratch.key[3] = inner.source[1];
    scratch.key[4] = keys::word(swapped(inner.ports), inner.protocol, inner.is_ipv6 != 0, way.is_forward());
    let Some(entry) = connections::find(&scratch.key) else { return TC_ACT_UNSPEC };
    // SAFETY: a valid entry.
    scratch.value = unsafe { *entry };
    let rule = scratch.value.rule;
    if scratch.value.key_ports != swapped(scratch.inner.ports) {
        return TC_ACT_UNSPEC;
    }
    if !write::make_writable(skb, end(&scratch.inner)) {
        return write::locked(rule);
    }
    let target = Target { side: way.side(), address: scratch.value.address, ports: scratch.value.ports };
    let plan = IcmpPlan::new(&scratch.layout, &scratch.inner, &target);
    if !carry_out(skb, &scratch.layout, &scratch.inner, &target, &plan) {
        return write::failed(rule);
    }
    count::reason(rule, Reason::IcmpTranslated);
    if plan.changes_outer {
        return route::leave(skb, way, scratch.value.route, scratch.value.interface);
    }
    TC_ACT_UNSPEC
}

/// The end of what is written.
#[inline(always)]
fn end(inner: &Layout) -> u32 {
    if inner.has_check == 0 {
        return inner.transport + 4;
    }
    check_at(inner) + 2
}

#[inline(always)]
fn check_at(inner: &Layout) -> u32 {
    inner.transport + if inner.protocol == protocol::UDP { UDP_CHECK } else { TCP_CHECK }
}

#[inline(always)]
fn carry_out(skb: Skb, outer: &Layout, inner: &Layout, target: &Target, plan: &IcmpPlan) -> bool {
    let is_ipv6 = outer.is_ipv6 != 0;
    if plan.changes_outer
        && !((is_ipv6 || store(skb, outer.network + IPV4_CHECK, plan.outer_ip_check.to_ne_bytes(), 0))
            && store_address(skb, plan.outer_address_at, target.address, is_ipv6, 0))
    {
        return false;
    }
    if inner.has_check != 0 && !store(skb, check_at(inner), plan.inner_check.to_ne_bytes(), 0) {
        return false;
    }
    (is_ipv6 || store(skb, inner.network + IPV4_CHECK, plan.inner_ip_check.to_ne_bytes(), 0))
        && store_address(skb, plan.inner_address_at, target.address, is_ipv6, 0)
        && write::store_ports(skb, inner.transport, plan.inner_ports)
        && change_check(skb, outer.transport + ICMP_CHECK, plan.message, 0)
        && (!is_ipv6
            || change_check(skb, outer.transport + ICMP_CHECK, plan.pseudo, PSEUDO_HEADER | IPV6.load()))
}
