//! The flow table: two slots per flow on each CPU, and behind them a hash map.
//!
//! A flow lives where its first packet of the generation found room: in the slot its key hashes to, in that slot's
//! neighbour, else in the overflow map, whose keys carry the CPU. Nothing is ever evicted or moved within a
//! generation, so one look at each place in order finds a flow, and one CPU alone writes an entry.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_common::flow::{FlowKey, FlowValue, KEY_WORDS, Slot, VALUE_WORDS};
use weir_ebpf::skb::Skb;

use crate::{
    account::Packet,
    entry::{Flow, Outcome, add, first_packet},
    maps::{OVERFLOW, SCRATCH, SEED, SLOT_BITS, SLOTS},
};

/// Counts a packet for its flow.
#[inline(always)]
pub(crate) fn count(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let slot = hash(&flow.words);
    if let Some(first) = slot_at(flow.first_slot + slot)
        && let Some(outcome) = try_slot(skb, first, flow, packet)
    {
        return outcome;
    }
    if let Some(second) = slot_at(flow.first_slot + (slot ^ 1))
        && let Some(outcome) = try_slot(skb, second, flow, packet)
    {
        return outcome;
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
