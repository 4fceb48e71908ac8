//! One preallocated hash map for all CPUs: packets and bytes are added atomically, time is in jiffies.
//!
//! The other fields of an entry are written plainly, as tools of this kind do: what two CPUs do to them at the same
//! moment may get lost.

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, macros::btf_map};
use weir_common::flow::{FlowValue, KEY_WORDS, VALUE_WORDS, VERDICT_FILTERED, VERDICT_KEEP};
use weir_ebpf::skb::Skb;

use crate::{
    account::Packet,
    entry::{Flow, Outcome, first_packet},
    maps::SCRATCH,
};

/// Flows of all CPUs: twice as many as the benchmark has.
#[btf_map]
static FLOWS: HashMap<[u64; KEY_WORDS], [u64; VALUE_WORDS], 131_072> = HashMap::new();

/// Low 48 bits of word 5, without the CPU.
const WITHOUT_CPU: u64 = (1 << 48) - 1;

#[inline(always)]
fn key(flow: &Flow) -> [u64; KEY_WORDS] {
    let mut key = flow.words;
    key[KEY_WORDS - 1] &= WITHOUT_CPU;
    key
}

/// Counts a packet for its flow.
#[inline(always)]
pub(crate) fn count(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let key = key(flow);
    match FLOWS.get_ptr_mut(&key) {
        Some(value) => add(value.cast(), packet),
        None => insert(skb, flow, packet),
    }
}

#[inline(always)]
fn add(value: *mut FlowValue, packet: &Packet) -> Outcome {
    // SAFETY: a valid element of 64 bytes, aligned to 8.
    let value = unsafe { &mut *value };
    if value.verdict != VERDICT_KEEP {
        return if value.verdict == VERDICT_FILTERED { Outcome::Filtered } else { Outcome::Duplicate };
    }
    if value.packets >= FlowValue::SATURATED {
        return Outcome::Overflow;
    }
    // SAFETY: a field of a valid element, aligned to its size.
    unsafe { atomic_xadd::<u64, u64, { Relaxed }>(&raw mut value.bytes, packet.bytes) };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u32, u32, { Relaxed }>(&raw mut value.packets, packet.packets) };
    value.skb_bytes += packet.skb_bytes;
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

#[inline(never)]
fn insert(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let key = key(flow);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Outcome::Overflow };
    // SAFETY: the scratch memory belongs to this CPU until the program ends.
    let value = unsafe { &mut (*scratch).value };
    let outcome = first_packet(skb, flow, value, packet);
    let words: *const [u64; VALUE_WORDS] = core::ptr::from_ref(value).cast();
    // SAFETY: a value has as many words and no padding.
    match FLOWS.insert(&key, unsafe { &*words }, u64::from(BPF_NOEXIST)) {
        Ok(()) => outcome,
        Err(_) => Outcome::Overflow,
    }
}
