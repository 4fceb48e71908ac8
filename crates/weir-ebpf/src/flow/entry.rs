//! One entry of the flow table: its first packet, which decides whether the flow is kept, and every further one.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id};
use weir_common::flow::{
    EGRESS_BIT, FlowValue, KEY_WORDS, POINT_COUNTED, POINT_DEDUPLICATE, VERDICT_DUPLICATE, VERDICT_FILTERED,
    VERDICT_KEEP,
};
use weir_ebpf::skb::Skb;

use crate::{
    account::Packet,
    filter,
    maps::{POINTS, TC_HOOK},
};

/// What became of a packet that belongs to a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Outcome {
    /// Added to a flow that is reported.
    Counted = 0,
    /// The filter rejects the flow.
    Filtered = 1,
    /// The flow is counted at another point.
    Duplicate = 2,
    /// There was no room.
    Overflow = 3,
}

/// Words of a flow key with everything that a verdict needs.
pub(crate) struct Flow {
    /// The key.
    pub(crate) words: [u64; KEY_WORDS],
    /// Generation of this packet.
    pub(crate) generation: u32,
    /// First slot of this generation and CPU.
    pub(crate) first_slot: u32,
    /// Flags of the observation point.
    pub(crate) point_flags: u8,
}

/// Adds a packet to an entry.
#[inline(always)]
pub(crate) fn add(value: &mut FlowValue, packet: &Packet) -> Outcome {
    if value.verdict != VERDICT_KEEP {
        return if value.verdict == VERDICT_FILTERED { Outcome::Filtered } else { Outcome::Duplicate };
    }
    if value.packets >= FlowValue::SATURATED {
        return Outcome::Overflow;
    }
    value.skb_bytes += packet.skb_bytes;
    value.bytes += packet.bytes;
    value.packets += packet.packets;
    value.skbs += 1;
    value.last = packet.now;
    value.last_length = packet.last_length;
    value.tcp_flags |= packet.tcp_flags;
    value.last_tcp_flags = packet.tcp_flags;
    value.dscp = packet.dscp;
    value.ttl = packet.ttl;
    if packet.opens() && value.syn != u8::MAX {
        value.syn += 1;
    }
    if packet.closes() && value.fin_rst != u8::MAX {
        value.fin_rst += 1;
    }
    Outcome::Counted
}

/// Fills a new entry and decides whether its flow is kept.
#[inline(never)]
pub(crate) fn first_packet(skb: Skb, flow: &Flow, value: &mut FlowValue, packet: &Packet) -> Outcome {
    let outcome = verdict(skb, flow);
    value.verdict = match outcome {
        Outcome::Filtered => VERDICT_FILTERED,
        Outcome::Duplicate => VERDICT_DUPLICATE,
        Outcome::Counted | Outcome::Overflow => VERDICT_KEEP,
    };
    value.reserved = [0; 3];
    value.skb_bytes = packet.skb_bytes;
    value.bytes = packet.bytes;
    value.packets = packet.packets;
    value.skbs = 1;
    value.first = packet.now;
    value.last = packet.now;
    value.last_length = packet.last_length;
    value.tcp_flags = packet.tcp_flags;
    value.last_tcp_flags = packet.tcp_flags;
    value.syn = u8::from(packet.opens());
    value.fin_rst = u8::from(packet.closes());
    value.dscp = packet.dscp;
    value.ttl = packet.ttl;
    value.cookie = 0;
    value.cgroup = 0;
    // Socket filters see a copy of the packet that belongs to no socket, and may not ask for its cgroup. The verifier
    // knows the constant, so what it forbids there is gone before it looks.
    if TC_HOOK.load() != 0 {
        // SAFETY: the context is that of this program.
        value.cookie = unsafe { bpf_get_socket_cookie(skb.as_ptr().cast()) };
        // SAFETY: as above.
        value.cgroup = unsafe { bpf_skb_cgroup_id(skb.as_ptr()) };
    }
    outcome
}

/// Whether a new flow is kept, filtered or a duplicate. Never `Overflow`.
#[inline(always)]
fn verdict(skb: Skb, flow: &Flow) -> Outcome {
    if flow.point_flags & POINT_DEDUPLICATE != 0 && flow.words[4] & EGRESS_BIT != 0 {
        let ingress = skb.ingress_ifindex();
        if ingress != 0
            && let Some(point) = POINTS.get(ingress & 0xffff)
            && point.ifindex == ingress
            && point.flags & POINT_COUNTED != 0
        {
            return Outcome::Duplicate;
        }
    }
    if filter::admits(&flow.words, flow.generation) { Outcome::Counted } else { Outcome::Filtered }
}
