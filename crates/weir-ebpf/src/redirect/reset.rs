//! Refusing a TCP connection: the packet is turned into a reset and sent back to where it came from.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::generated::{bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes},
};
use weir_common::redirect::Reason;
use weir_ebpf::skb::Skb;
use weir_packet::{
    protocol,
    rewrite::{Fragment, Layout, Sum},
};

use crate::{
    count,
    fast::{ACK, FIN, RST, SYN},
    keys::Way,
    maps::scratch,
    slow::is_ip_link,
    write::{self, IPV4_CHECK, TCP_CHECK, make_writable, store, store_address},
};

const ETHERNET_BYTES: u32 = 14;
const TCP_BYTES: u32 = 20;
const BPF_F_INGRESS: u64 = 1;
/// Keep the card's sum of the whole packet right; not for the Ethernet header, which is not part of it.
const RECOMPUTE: u64 = 1;

/// What is left of the old packet in a reset.
struct Answer {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    /// Whether the checksum is left to the network card.
    is_partial: bool,
}

/// Answers the TCP packet whose layout is in the scratch memory by a reset; drops it where that cannot be.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_reset(context: *mut __sk_buff, hint: u64) -> i32 {
    let (skb, way) = (Skb::new(context), Way::from_bits(hint));
    let Some(scratch) = scratch() else { return TC_ACT_SHOT };
    let is_tcp = scratch.layout.protocol == protocol::TCP;
    // A reset is not answered by another one (RFC 9293 3.5.2).
    if !is_tcp || scratch.layout.tcp_flags & RST != 0 || scratch.layout.fragment != Fragment::Whole {
        return TC_ACT_SHOT;
    }
    if !make_writable(skb, scratch.layout.transport + TCP_BYTES) {
        return TC_ACT_SHOT;
    }
    let Some(answer) = answer(skb, &scratch.layout) else { return TC_ACT_SHOT };
    // SAFETY: the context is valid while the program runs; the kernel checks the length.
    let cut = unsafe { bpf_skb_change_tail(skb.as_ptr(), scratch.layout.transport + TCP_BYTES, 0) };
    if cut != 0
        || !write_network(skb, &scratch.layout)
        || !write_transport(skb, &scratch.layout, &answer)
        || !(is_ip_link(hint) || turn_link(skb, scratch))
    {
        count::reason(0, Reason::WriteFailed);
        return TC_ACT_SHOT;
    }
    let direction = if way == Way::Uplink { BPF_F_INGRESS } else { 0 };
    // SAFETY: no preconditions.
    (unsafe { bpf_redirect(skb.ifindex(), direction) }) as i32
}

/// Bytes of a packet.
#[inline(always)]
fn load<const N: usize>(skb: Skb, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: there is room for as many bytes; the kernel checks the offset.
    let outcome =
        unsafe { bpf_skb_load_bytes(skb.as_ptr().cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    if outcome == 0 { Some(bytes) } else { None }
}

/// What the reset says (RFC 9293 3.5.2).
#[inline(always)]
fn answer(skb: Skb, layout: &Layout) -> Option<Answer> {
    let numbers: [u8; 8] = load(skb, layout.transport + 4)?;
    let sequence = u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]);
    let acknowledgement = u32::from_be_bytes([numbers[4], numbers[5], numbers[6], numbers[7]]);
    let (length_at, before) = if layout.is_ipv6 != 0 { (4, 40) } else { (2, 0) };
    let length: [u8; 2] = load(skb, layout.network + length_at)?;
    let length = u32::from(u16::from_be_bytes(length));
    let end = if length == 0 { skb.length() } else { layout.network + before + length };
    let payload = end.saturating_sub(layout.transport + u32::from(layout.tcp_words) * 4);
    let counted = u32::from(layout.tcp_flags & SYN != 0) + u32::from(layout.tcp_flags & FIN != 0);
    // Only if the card is to finish the checksum, the helper leaves it alone.
    let before: [u8; 2] = load(skb, layout.transport + TCP_CHECK)?;
    if !write::change_check(skb, layout.transport + TCP_CHECK, Sum::ZERO.add(1), 0) {
        return None;
    }
    let after: [u8; 2] = load(skb, layout.transport + TCP_CHECK)?;
    let is_partial = before[0] == after[0] && before[1] == after[1];
    // Back again: the card's sum does not know of it.
    if !is_partial && !write::change_check(skb, layout.transport + TCP_CHECK, Sum::ZERO.replace(1, 0), 0) {
        return None;
    }
    if layout.tcp_flags & ACK != 0 {
        return Some(Answer { sequence: acknowledgement, acknowledgement: 0, flags: RST, is_partial });
    }
    let acknowledgement = sequence.wrapping_add(payload).wrapping_add(counted);
    Some(Answer { sequence: 0, acknowledgement, flags: RST | ACK, is_partial })
}

/// Exchanges the addresses, which changes no sum, and writes the new length.
#[inline(always)]
fn write_network(skb: Skb, layout: &Layout) -> bool {
    let is_ipv6 = layout.is_ipv6 != 0;
    let end = layout.transport + TCP_BYTES;
    let (source_at, destination_at) = if is_ipv6 { (8, 24) } else { (12, 16) };
    if !store_address(skb, layout.network + source_at, layout.destination, is_ipv6, RECOMPUTE)
        || !store_address(skb, layout.network + destination_at, layout.source, is_ipv6, RECOMPUTE)
    {
        return false;
    }
    if is_ipv6 {
        let payload = (end - layout.network - 40) as u16;
        return store(skb, layout.network + 4, payload.to_be_bytes(), RECOMPUTE);
    }
    let Some(old) = load::<2>(skb, layout.network + 2) else { return false };
    let new = ((end - layout.network) as u16).to_be_bytes();
    let change = Sum::ZERO.replace_short(u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    store(skb, layout.network + 2, new, RECOMPUTE)
        && store(
            skb,
            layout.network + IPV4_CHECK,
            change.applied_to(layout.ip_check).to_ne_bytes(),
            RECOMPUTE,
        )
}

#[inline(always)]
fn write_transport(skb: Skb, layout: &Layout, answer: &Answer) -> bool {
    // In memory's order: sums do not care which, as long as it is one.
    let ports = layout.ports.to_be();
    let sequence = answer.sequence.to_be();
    let acknowledgement = answer.acknowledgement.to_be();
    let offset_and_flags = u32::from_ne_bytes([5 << 4, answer.flags, 0, 0]);
    let mut pseudo = Sum::ZERO.add((u32::from(protocol::TCP) + TCP_BYTES).to_be());
    let mut index = 0;
    while index < 2 {
        let (source, destination) = (layout.source[index].to_be(), layout.destination[index].to_be());
        if layout.is_ipv6 != 0 {
            pseudo = pseudo.add(source as u32).add((source >> 32) as u32);
            pseudo = pseudo.add(destination as u32).add((destination >> 32) as u32);
        } else if index == 1 {
            pseudo = pseudo.add((source >> 32) as u32).add((destination >> 32) as u32);
        }
        index += 1;
    }
    let check = if answer.is_partial {
        pseudo.folded()
    } else {
        !pseudo.add(ports).add(sequence).add(acknowledgement).add(offset_and_flags).folded()
    };
    let at = layout.transport;
    store(skb, at, ports.to_ne_bytes(), RECOMPUTE)
        && store(skb, at + 4, sequence.to_ne_bytes(), RECOMPUTE)
        && store(skb, at + 8, acknowledgement.to_ne_bytes(), RECOMPUTE)
        && store(skb, at + 12, offset_and_flags.to_ne_bytes(), RECOMPUTE)
        && store(skb, at + TCP_CHECK, check.to_ne_bytes(), RECOMPUTE)
        && store(skb, at + TCP_CHECK + 2, [0, 0], RECOMPUTE)
}

/// Exchanges the Ethernet addresses.
#[inline(always)]
fn turn_link(skb: Skb, scratch: &crate::maps::Scratch) -> bool {
    let bytes = &scratch.headers.bytes;
    let mut turned = [0; ETHERNET_BYTES as usize - 2];
    let mut index = 0;
    while index < 6 {
        turned[index] = bytes[6 + index];
        turned[6 + index] = bytes[index];
        index += 1;
    }
    store(skb, 0, turned, 0)
}
