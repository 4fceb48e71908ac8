//! An LRU hash map per CPU: counters are plain, time is the monotonic clock in nanoseconds.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{LruPerCpuHashMap, PerCpuArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_map,
};
use weir_common::flow::{KEY_WORDS, VALUE_WORDS};
use weir_ebpf::skb::Skb;

use crate::{
    account::Packet,
    entry::{self, Flow, Outcome, first_packet},
};

/// Words of an entry: those of the other designs, with first and last time in nanoseconds behind them.
const WORDS: usize = VALUE_WORDS + 2;
const FIRST: usize = VALUE_WORDS;
const LAST: usize = VALUE_WORDS + 1;

/// Low 48 bits of word 5, without the CPU.
const WITHOUT_CPU: u64 = (1 << 48) - 1;

/// Flows, one value for each CPU: twice as many as the benchmark has.
#[btf_map]
static FLOWS: LruPerCpuHashMap<[u64; KEY_WORDS], [u64; WORDS], 131_072> = LruPerCpuHashMap::new();

/// A new entry, which would not fit the stack.
#[btf_map]
static NEW: PerCpuArray<[u64; WORDS], 1> = PerCpuArray::new();

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
    let Some(words) = FLOWS.get_ptr_mut(&key) else { return insert(skb, flow, packet) };
    // SAFETY: no arguments, no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a valid element, which only this CPU writes.
    unsafe { (*words)[LAST] = now };
    // SAFETY: as above; the first words are a value.
    entry::add(unsafe { &mut *words.cast() }, packet)
}

#[inline(never)]
fn insert(skb: Skb, flow: &Flow, packet: &Packet) -> Outcome {
    let key = key(flow);
    let Some(words) = NEW.get_ptr_mut(0) else { return Outcome::Overflow };
    // SAFETY: it belongs to this CPU until the program ends; the first words are a value.
    let outcome = first_packet(skb, flow, unsafe { &mut *words.cast() }, packet);
    // SAFETY: as above.
    let words = unsafe { &mut *words };
    // SAFETY: no arguments, no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    words[FIRST] = now;
    words[LAST] = now;
    match FLOWS.insert(&key, &*words, u64::from(BPF_NOEXIST)) {
        Ok(()) => outcome,
        Err(_) => Outcome::Overflow,
    }
}
