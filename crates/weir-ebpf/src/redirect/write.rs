//! Carrying out what `weir_packet::rewrite` plans, for any packet; the fast path does the same in place.
//!
//! A packet is made writable first, as far as it will be written. If that or anything later fails the packet is dropped:
//! who would get it untranslated knows nothing of it, and half a translation must not leave.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes},
};
use weir_common::redirect::Reason;
use weir_ebpf::skb::Skb;
use weir_packet::{
    protocol,
    rewrite::{Fragment, Layout, Plan, Sum, Target, swapped},
};

use crate::{count, fragment, keys::Way, maps::scratch, route};

/// `BPF_F_PSEUDO_HDR`: what changed is in the pseudo header, which is summed even where the rest is left to the card.
pub(crate) const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a checksum of 0 means that there is none, and stays; one that becomes 0 is written as ones.
pub(crate) const MARK_MANGLED_0: u64 = 1 << 5;
/// `BPF_F_RECOMPUTE_CSUM`: keep the card's sum of the whole packet right.
const RECOMPUTE: u64 = 1;

/// `BPF_F_IPV6` where the kernel knows it: the address that changes is in the packet, but no header checksum makes up for
/// it as in IPv4.
pub(crate) use crate::maps::IPV6_FLAG as IPV6;

/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CHECK: u32 = 16;
/// The same in a UDP header.
pub(crate) const UDP_CHECK: u32 = 6;
/// The same in an IPv4 header.
pub(crate) const IPV4_CHECK: u32 = 10;

/// Changes a checksum by what changed. False if the kernel refuses.
#[inline(always)]
pub(crate) fn change_check(skb: Skb, offset: u32, change: Sum, flags: u64) -> bool {
    // SAFETY: the context is valid while the program runs; the kernel checks the offset.
    let outcome = unsafe { bpf_l4_csum_replace(skb.as_ptr(), offset, 0, u64::from(change.partial()), flags) };
    outcome == 0
}

/// Counts and drops a packet that is half translated.
#[inline(always)]
pub(crate) fn failed(rule: u32) -> i32 {
    count::reason(rule, Reason::WriteFailed);
    TC_ACT_SHOT
}

/// Counts and drops a packet that cannot be made writable: it is of a connection, and untranslated it would go to somebody
/// who knows nothing of it.
#[inline(always)]
pub(crate) fn locked(rule: u32) -> i32 {
    count::reason(rule, Reason::NotWritable);
    TC_ACT_SHOT
}

/// Makes the first `length` bytes of a packet writable. All direct access to it ends.
#[inline(always)]
pub(crate) fn make_writable(skb: Skb, length: u32) -> bool {
    // SAFETY: the context is valid while the program runs; the kernel checks the length.
    unsafe { bpf_skb_pull_data(skb.as_ptr(), length) == 0 }
}

/// Overwrites bytes of a packet.
#[inline(always)]
pub(crate) fn store<const N: usize>(skb: Skb, offset: u32, bytes: [u8; N], flags: u64) -> bool {
    // SAFETY: the bytes outlive the call; the kernel checks the offset.
    unsafe { bpf_skb_store_bytes(skb.as_ptr(), offset, bytes.as_ptr().cast(), N as u32, flags) == 0 }
}

/// Overwrites an address.
#[inline(always)]
pub(crate) fn store_address(skb: Skb, at: u32, address: [u64; 2], is_ipv6: bool, flags: u64) -> bool {
    if is_ipv6 {
        store(skb, at, address[0].to_be_bytes(), flags) && store(skb, at + 8, address[1].to_be_bytes(), flags)
    } else {
        store(skb, at, (address[1] as u32).to_be_bytes(), flags)
    }
}

/// Overwrites both ports.
#[inline(always)]
pub(crate) fn store_ports(skb: Skb, at: u32, ports: u32) -> bool {
    store(skb, at, swapped(ports).to_be_bytes(), 0)
}

/// Translates the packet whose layout is in the scratch memory by the value there. Returns what becomes of it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_write(context: *mut __sk_buff, hint: u64) -> i32 {
    let (skb, way) = (Skb::new(context), Way::from_bits(hint));
    let Some(scratch) = scratch() else { return TC_ACT_UNSPEC };
    let (rule, backend) = (scratch.value.rule, scratch.value.backend);
    let is_udp = scratch.layout.protocol == protocol::UDP;
    let header_length = scratch.layout.transport + if is_udp { 8 } else { 20 };
    if !make_writable(skb, header_length) {
        return locked(rule);
    }
    if scratch.layout.fragment == Fragment::First {
        fragment::weir_remember(hint);
    }
    let target = Target { side: way.side(), address: scratch.value.address, ports: scratch.value.ports };
    if !carry_out(skb, &scratch.layout, &target) {
        return failed(rule);
    }
    count::packet(skb, backend, way.is_forward(), u64::from(header_length));
    route::leave(skb, way, scratch.value.route, scratch.value.interface)
}

#[inline(always)]
fn carry_out(skb: Skb, layout: &Layout, target: &Target) -> bool {
    let plan = Plan::new(layout, target);
    let is_ipv6 = layout.is_ipv6 != 0;
    let is_udp = layout.protocol == protocol::UDP;
    let check_at = layout.transport + if is_udp { UDP_CHECK } else { TCP_CHECK };
    let zero = if is_udp { MARK_MANGLED_0 } else { 0 };
    let family = if is_ipv6 { IPV6.load() } else { 0 };
    // Without a transport checksum nothing makes up for what is written, but for the address in IPv4.
    let ports_flags = if layout.has_check == 0 { RECOMPUTE } else { 0 };
    let address_flags = if is_ipv6 { ports_flags } else { 0 };
    (is_ipv6 || store(skb, layout.network + IPV4_CHECK, plan.ip_check.to_ne_bytes(), 0))
        && store_address(skb, plan.address_at, target.address, is_ipv6, address_flags)
        && store(skb, layout.transport, swapped(target.ports).to_be_bytes(), ports_flags)
        && change_check(skb, check_at, plan.pseudo, PSEUDO_HEADER | zero | family)
        && change_check(skb, check_at, plan.plain, zero)
}

/// Translates the address of a fragment that is not the first.
#[inline(always)]
pub(crate) fn write_fragment(skb: Skb, layout: &Layout, target: &Target) -> bool {
    let plan = Plan::new(layout, target);
    let is_ipv6 = layout.is_ipv6 != 0;
    // In IPv4 the header checksum makes up for the address in the card's sum; here nothing in the packet does.
    let flags = if is_ipv6 { RECOMPUTE } else { 0 };
    (is_ipv6 || store(skb, layout.network + IPV4_CHECK, plan.ip_check.to_ne_bytes(), 0))
        && store_address(skb, plan.address_at, target.address, is_ipv6, flags)
}
