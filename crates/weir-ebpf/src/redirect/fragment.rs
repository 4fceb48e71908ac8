//! Fragments: the first has the ports and is translated like any packet; the later ones follow it by what all fragments
//! of a datagram have in common.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, TC_ACT_SHOT, TC_ACT_UNSPEC};
use weir_common::redirect::{FragmentValue, KEY_IPV6, KEY_PROTOCOL, KEY_REVERSE, Reason};
use weir_ebpf::skb::Skb;
use weir_packet::rewrite::{Layout, Target};

use crate::{
    choose, count,
    keys::Way,
    maps::{FRAGMENTS, HZ, scratch},
    route,
    slow::now,
    write,
};

/// Route of fragments that pass as they are.
const PASSES: u32 = 255;

/// Seconds after which an identification may mean another datagram (the kernel's own limit of reassembly).
const SECONDS: u32 = 30;

#[inline(always)]
fn key(layout: &Layout, way: Way) -> [u64; 5] {
    // In IPv6 the protocol is not part of what names a datagram (RFC 8200 4.5).
    let rest = if layout.is_ipv6 != 0 { KEY_IPV6 } else { u64::from(layout.protocol) << KEY_PROTOCOL };
    let direction = if way.is_forward() { 0 } else { KEY_REVERSE };
    [
        layout.source[0],
        layout.source[1],
        layout.destination[0],
        layout.destination[1],
        u64::from(layout.identification) | rest | direction,
    ]
}

/// Remembers what becomes of the fragments that follow the packet in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_remember(hint: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    let value = FragmentValue {
        address: scratch.value.address,
        created: now(),
        rule: scratch.value.rule,
        backend: scratch.value.backend,
        route: u32::from(scratch.value.route),
        interface: scratch.value.interface,
        reserved: 0,
    };
    // Without room the fragments count as missed.
    let _full = FRAGMENTS.insert(key(&scratch.layout, Way::from_bits(hint)), value, u64::from(BPF_ANY));
    0
}

/// Remembers that the fragments that follow the packet in the scratch memory, which passes, pass too, if they would be
/// taken for missed ones.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_let_pass() -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    if !choose::is_listened_on(&scratch.layout) {
        return 0;
    }
    let value = FragmentValue {
        address: [0; 2],
        created: now(),
        rule: 0,
        backend: 0,
        route: PASSES,
        interface: 0,
        reserved: 0,
    };
    let _full = FRAGMENTS.insert(key(&scratch.layout, Way::Client), value, u64::from(BPF_ANY));
    0
}

/// Translates the later fragment whose layout is in the scratch memory. One whose first was not seen is dropped if it is
/// for a listener: there it would be put together wrongly, or wait in vain.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_fragment(context: *mut __sk_buff, hint: u64) -> i32 {
    let (skb, way) = (Skb::new(context), Way::from_bits(hint));
    let Some(scratch) = scratch() else { return TC_ACT_UNSPEC };
    let known = FRAGMENTS.get_ptr(key(&scratch.layout, way));
    let Some(known) = known else {
        if way.is_forward() && choose::is_listened_on(&scratch.layout) {
            count::reason(0, Reason::FragmentMissed);
            return TC_ACT_SHOT;
        }
        return TC_ACT_UNSPEC;
    };
    // SAFETY: a valid entry.
    let known = unsafe { *known };
    if known.route == PASSES || now().wrapping_sub(known.created) > HZ.load() * SECONDS {
        return TC_ACT_UNSPEC;
    }
    if !write::make_writable(skb, scratch.layout.transport) {
        return write::locked(known.rule);
    }
    let target = Target { side: way.side(), address: known.address, ports: 0 };
    if !write::write_fragment(skb, &scratch.layout, &target) {
        return write::failed(known.rule);
    }
    count::reason(known.rule, Reason::FragmentTranslated);
    count::packet(skb, known.backend, way.is_forward(), u64::from(scratch.layout.transport));
    route::leave(skb, way, known.route as u8, known.interface)
}
