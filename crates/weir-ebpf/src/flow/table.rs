//! The flow table: two slots per flow on each CPU, and behind them a hash map.
//!
//! A flow lives where its first packet of the generation found room: in the slot its key hashes to, in that slot's
//! neighbour, else in the overflow map, whose keys carry the CPU. Nothing is ever evicted or moved within a
//! generation, so one look at each place in order finds a flow, and one CPU alone writes an entry.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id},
};
use weir_common::flow::{
    EGRESS_BIT, FlowKey, FlowValue, KEY_WORDS, POINT_COUNTED, POINT_DEDUPLICATE, Slot, VALUE_WORDS,
    VERDICT_DUPLICATE, VERDICT_FILTERED, VERDICT_KEEP,
};
use weir_ebpf::skb::Skb;

use crate::{
    account::Packet,
    filter,
    maps::{OVERFLOW, POINTS, SCRATCH, SEED, SLOT_BITS, SLOTS, TC_HOOK},
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

/// Counts a packet for its flow.
#[inline(always)]
pub(crate) fn count(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let slot = hash(&flow.words);
    if let Some(first) = slot_at(flow.first_slot + slot) {
        if let Some(outcome) = try_slot(skb, first, flow, packet) {
            return outcome;
        }
    }
    if let Some(second) = slot_at(flow.first_slot + (slot ^ 1)) {
        if let Some(outcome) = try_slot(skb, second, flow, packet) {
            return outcome;
        }
    }
    overflow(skb, flow, packet)
}

#[inline(always)]
fn slot_at(index: u32) -> Option<*mut Slot> {
    SLOTS.get_ptr_mut(index)
}

/// Multiply-add-shift over the words with random odd multipliers: 2-universal, and the products do not wait for
/// each other.
#[inline(always)]
fn hash(words: &[u64; KEY_WORDS]) -> u32 {
    let seed = SEED.load();
    let mut sum = 0u64;
    for (word, multiplier) in words.iter().zip(seed) {
        sum = sum.wrapping_add((word ^ (word >> 32)).wrapping_mul(multiplier));
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most SLOT_BITS bits are left")]
    let slot = (sum >> 40) as u32;
    slot & ((1 << (SLOT_BITS.load() & 31)) - 1)
}

/// Counts the packet in a slot if the slot holds its flow or is free; `None` if another flow has it.
#[inline(always)]
fn try_slot(skb: Skb, slot: *mut Slot, flow: &Flow, packet: &Packet) -> Option<Outcome> {
    // SAFETY: the lookup gave a valid element, which only this CPU writes in this generation.
    let slot = unsafe { &mut *slot };
    let key = &slot.key.words;
    let words = &flow.words;
    let difference = (key[5] ^ words[5])
        | (key[4] ^ words[4])
        | (key[3] ^ words[3])
        | (key[1] ^ words[1])
        | (key[2] ^ words[2])
        | (key[0] ^ words[0]);
    if difference == 0 {
        return Some(add(&mut slot.value, packet));
    }
    if key[5] != 0 {
        return None;
    }
    slot.key = FlowKey { words: *words };
    Some(first_packet(skb, flow, &mut slot.value, packet))
}

/// Adds a packet to an entry.
#[inline(always)]
fn add(value: &mut FlowValue, packet: &Packet) -> Outcome {
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
fn first_packet(skb: Skb, flow: &Flow, value: &mut FlowValue, packet: &Packet) -> Outcome {
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

/// Counts a packet whose flow has no slot.
#[inline(never)]
fn overflow(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let Some(map) = OVERFLOW.get(flow.generation) else { return Outcome::Overflow };
    if let Some(value) = map.get_ptr_mut(&flow.words) {
        // SAFETY: the lookup gave a valid element of 64 bytes, aligned to 8, which only this CPU writes.
        return add(unsafe { &mut *value.cast::<FlowValue>() }, packet);
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Outcome::Overflow };
    // SAFETY: the scratch memory belongs to this CPU until the program ends.
    let value = unsafe { &mut (*scratch).value };
    let outcome = first_packet(skb, flow, value, packet);
    let words: *const [u64; VALUE_WORDS] = core::ptr::from_ref(value).cast();
    // SAFETY: a value has as many words and no padding.
    let inserted = map.insert(&flow.words, unsafe { &*words }, u64::from(BPF_NOEXIST));
    match (inserted, outcome) {
        (Ok(()), _) | (Err(_), Outcome::Filtered | Outcome::Duplicate) => outcome,
        (Err(_), _) => Outcome::Overflow,
    }
}
