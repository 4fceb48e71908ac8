//! Every packet that is not an everyday one: read by the general parser, written by the kernel's helpers.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::generated::bpf_jiffies64,
};
use weir_common::redirect::{
    CONNECTION_CLOSED, CONNECTION_DIRECT, CONNECTION_ENDED, CONNECTION_FIN, CONNECTION_RST, CONNECTION_SEEN,
    CONNECTION_SYN, Reason, TICK, is_pair, pair_key,
};
use weir_ebpf::skb::Skb;
use weir_packet::{
    Link, Window, protocol,
    rewrite::{self, Found, Fragment},
};

use crate::{
    choose, connections, count, enter,
    fast::{ACK, FIN, RST, SYN, is_of_interest, is_there_of},
    fragment, icmp,
    keys::{self, Way},
    maps::{Scratch, forget_cached, scratch},
    reset, route, write,
};

/// Set in a hint for devices without link headers.
const IP_LINK: u64 = 4;

/// What a global function needs to know, in one number.
#[inline(always)]
pub(crate) fn hint(link: Link, way: Way) -> u64 {
    way.bits() | if link == Link::Ip { IP_LINK } else { 0 }
}

/// Whether a hint is of a device without link headers.
#[inline(always)]
pub(crate) fn is_ip_link(hint: u64) -> bool {
    hint & IP_LINK != 0
}

/// Handles a packet. Returns what becomes of it.
#[inline(always)]
pub(crate) fn packet(skb: Skb, link: Link, way: Way) -> i32 {
    weir_slow(skb.as_ptr(), hint(link, way))
}

/// The time, as connections are stamped.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: no arguments, no preconditions.
    (unsafe { bpf_jiffies64() }) as u32
}

/// Handles a packet.
///
/// A global function, which the verifier checks once and not anew for each program and path that calls it. Those that it
/// calls are too.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_slow(context: *mut __sk_buff, hint: u64) -> i32 {
    let Some(scratch) = scratch() else { return TC_ACT_UNSPEC };
    let is_busy = &raw mut scratch.is_busy;
    // SAFETY: a valid element, of this CPU.
    if unsafe { is_busy.read_volatile() } != 0 {
        count::reason(0, Reason::Interrupted);
        return TC_ACT_UNSPEC;
    }
    // SAFETY: as above.
    unsafe { is_busy.write_volatile(1) };
    let verdict = work(context, hint);
    // SAFETY: as above.
    unsafe { is_busy.write_volatile(0) };
    verdict
}

#[inline(always)]
fn work(context: *mut __sk_buff, hint: u64) -> i32 {
    const TRANSPORT: u32 = Found::Transport as u32;
    const LATER: u32 = Found::LaterFragment as u32;
    const ERROR: u32 = Found::IcmpError as u32;
    const MALFORMED: u32 = Found::Malformed as u32;
    const EXTENSIONS: u32 = Found::Extensions as u32;
    match weir_layout(context, hint) {
        TRANSPORT => weir_transport(context, hint),
        LATER => fragment::weir_fragment(context, hint),
        ERROR => icmp::weir_icmp(context, hint),
        MALFORMED => {
            count::reason(0, Reason::Malformed);
            TC_ACT_UNSPEC
        }
        EXTENSIONS => {
            count::reason(0, Reason::Extensions);
            TC_ACT_UNSPEC
        }
        _ => TC_ACT_UNSPEC,
    }
}

/// Copies the headers of a packet into the scratch memory and finds its parts. Returns a [`Found`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_layout(context: *mut __sk_buff, hint: u64) -> u32 {
    let skb = Skb::new(context);
    let link = if is_ip_link(hint) { Link::Ip } else { Link::Ethernet };
    let Some(scratch) = scratch() else { return Found::Other as u32 };
    let Some(length) = skb.copy_headers(&mut scratch.headers) else { return Found::Malformed as u32 };
    let Scratch { headers, layout, inner, .. } = scratch;
    let mut window = Window::new(headers, length);
    let found = rewrite::layout(&mut window, skb.length(), link, skb.ethertype(), layout);
    if found == Found::IcmpError {
        let is_readable = rewrite::inner_layout(&mut window, skb.length(), layout, inner);
        inner.tcp_flags = u8::from(is_readable);
    }
    found as u32
}

/// Handles TCP and UDP whose ports are known.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_transport(context: *mut __sk_buff, hint: u64) -> i32 {
    let way = Way::from_bits(hint);
    let Some(scratch) = scratch() else { return TC_ACT_UNSPEC };
    if !is_of_interest(scratch.layout.protocol, scratch.layout.ports, way) {
        return untouched(scratch, way);
    }
    keys::of_packet(&scratch.layout, way, &mut scratch.key);
    if let Some(entry) = connections::find(&scratch.key) {
        // SAFETY: a valid entry.
        scratch.value = unsafe { *entry };
        if scratch.value.key_ports == scratch.layout.ports {
            match weir_known(context, hint) {
                KNOWN => return write::weir_write(context, way.bits()),
                REFUSED => return reset::weir_reset(context, hint),
                _ => {}
            }
        }
    }
    if !way.is_forward() {
        return TC_ACT_UNSPEC;
    }
    match choose::weir_choose(hint) {
        choose::CHOSEN => {}
        choose::RESET => return reset::weir_reset(context, hint),
        choose::DROP => return aya_ebpf::bindings::TC_ACT_SHOT,
        _ => return untouched(scratch, way),
    }
    if way == Way::Uplink {
        route::weir_route(context, u64::from(is_ip_link(hint)));
    }
    match enter::weir_enter() {
        enter::ENTERED => write::weir_write(context, way.bits()),
        enter::DROP => aya_ebpf::bindings::TC_ACT_SHOT,
        _ => untouched(scratch, way),
    }
}

/// Lets a packet go as it is; fragments that follow shall go too.
#[inline(always)]
fn untouched(scratch: &Scratch, way: Way) -> i32 {
    if way.is_forward() && scratch.layout.fragment == Fragment::First {
        fragment::weir_let_pass();
    }
    TC_ACT_UNSPEC
}

/// The packet is of the connection in the scratch memory.
const KNOWN: u64 = 0;
/// It is of one that was ended, and is refused.
const REFUSED: u64 = 1;
/// It begins a new one.
const NEW: u64 = 2;

/// Looks after the connection whose key and value are in the scratch memory: its state, its time, its other direction.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_known(context: *mut __sk_buff, hint: u64) -> u64 {
    let way = Way::from_bits(hint);
    let Some(scratch) = scratch() else { return NEW };
    let now = now();
    let is_tcp = scratch.layout.protocol == protocol::TCP;
    let tcp_flags = if is_tcp { scratch.layout.tcp_flags } else { 0 };
    let begins = tcp_flags & (SYN | ACK | RST) == SYN;
    scratch.pair_key = pair_key(&scratch.key, &scratch.value);
    if way.is_forward()
        && (scratch.value.flags & CONNECTION_ENDED != 0
            || (scratch.value.flags & CONNECTION_DIRECT == 0 && !is_there_of(&scratch.value)))
    {
        let rule = scratch.value.rule;
        forget(scratch);
        if begins {
            return NEW;
        }
        if is_tcp {
            count::reason(rule, Reason::Ended);
            return REFUSED;
        }
        count::reason(rule, Reason::ChosenAgain);
        return NEW;
    }
    let is_due = now.wrapping_sub(scratch.value.seen) >= TICK;
    let was = scratch.value.flags;
    let mut flags = was | CONNECTION_SEEN;
    if tcp_flags & SYN != 0 {
        flags |= CONNECTION_SYN;
    }
    if tcp_flags & FIN != 0 {
        flags |= CONNECTION_FIN;
    }
    if tcp_flags & RST != 0 {
        flags |= CONNECTION_RST;
    }
    let is_ending = tcp_flags & (FIN | RST) != 0 && flags & CONNECTION_CLOSED == 0;
    if is_due || is_ending || begins {
        let mut pair_flags = 0;
        match connections::find(&scratch.pair_key) {
            // SAFETY: a valid entry.
            Some(pair) if is_pair(&scratch.key, unsafe { &*pair }) => {
                // SAFETY: as above.
                pair_flags = unsafe { (*pair).flags };
                if is_ending && (flags & CONNECTION_RST != 0 || pair_flags & CONNECTION_FIN != 0) {
                    flags |= CONNECTION_CLOSED;
                    // SAFETY: as above. Another CPU's bit may be lost, which only makes a timeout longer.
                    unsafe { (*pair).flags = pair_flags | CONNECTION_CLOSED };
                    count::closed(scratch.value.backend);
                }
            }
            // A later connection has taken it over.
            Some(_) => {}
            None => repair(scratch, now),
        }
        let closing = CONNECTION_FIN | CONNECTION_RST | CONNECTION_CLOSED;
        if way.is_forward() && begins && (was | pair_flags) & closing != 0 {
            // The client uses its port again (RFC 9293 3.6.1).
            forget(scratch);
            return NEW;
        }
    }
    if is_due && way == Way::Uplink {
        route::weir_route(context, u64::from(is_ip_link(hint)));
    }
    if let Some(entry) = connections::find(&scratch.key) {
        // SAFETY: a valid entry.
        let entry = unsafe { &mut *entry };
        entry.seen = now;
        // What somebody else has set meanwhile stays.
        entry.flags |= flags;
        entry.route = scratch.value.route;
        entry.interface = scratch.value.interface;
    }
    KNOWN
}

/// Makes the other direction of a connection anew.
#[inline(always)]
fn repair(scratch: &mut Scratch, now: u32) {
    keys::pair_value(&scratch.key, &scratch.value, &mut scratch.pair);
    scratch.pair.seen = now;
    scratch.pair.flags = CONNECTION_SEEN;
    if connections::insert(&scratch.pair_key, &scratch.pair) == 0 {
        count::reason(scratch.value.rule, Reason::Repaired);
    }
}

/// Forgets the connection whose keys are in the scratch memory.
#[inline(always)]
fn forget(scratch: &Scratch) {
    connections::remove(&scratch.key);
    if let Some(pair) = connections::find(&scratch.pair_key) {
        // SAFETY: a valid entry.
        if is_pair(&scratch.key, unsafe { &*pair }) {
            connections::remove(&scratch.pair_key);
        }
    }
    forget_cached();
}
