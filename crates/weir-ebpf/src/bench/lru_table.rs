//! An LRU hash map per CPU: counters are plain, time is the monotonic clock in nanoseconds.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{LruPerCpuHashMap, PerCpuArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_map,
};
use weir_common::flow::{FlowValue, KEY_WORDS, VALUE_WORDS};
use weir_ebpf::skb::{Frames, Skb};

use crate::{
    account::Place,
    entry::{self, Outcome, Packet, first_packet},
    key::every_cpu,
};

/// What the other designs have, and the time in nanoseconds.
#[repr(C)]
pub(crate) struct Entry {
    value: FlowValue,
    first: u64,
    last: u64,
}

/// Words of an entry.
const WORDS: usize = VALUE_WORDS + 2;

/// Flows, one value for each CPU: twice as many as the benchmark has.
#[btf_map]
static FLOWS: LruPerCpuHashMap<[u64; KEY_WORDS], [u64; WORDS], 131_072> = LruPerCpuHashMap::new();

/// A new entry, which would not fit the stack.
#[btf_map]
static NEW: PerCpuArray<[u64; WORDS], 1> = PerCpuArray::new();

/// The entry of a flow.
#[inline(always)]
pub(crate) fn find(key: &[u64; KEY_WORDS], _: &Place) -> Option<&'static mut Entry> {
    let words = FLOWS.get_ptr_mut(every_cpu(key))?;
    // SAFETY: a valid element, which only this CPU writes.
    Some(unsafe { &mut *words.cast() })
}

/// The part of an entry that all designs of a table share.
#[inline(always)]
pub(crate) fn value(entry: &mut Entry) -> &mut FlowValue {
    &mut entry.value
}

/// Whether an entry takes more packets.
#[inline(always)]
pub(crate) fn admission(entry: &Entry) -> Outcome {
    entry::admission(&entry.value)
}

/// Adds what a packet measures to an entry.
#[inline(always)]
pub(crate) fn count(entry: &mut Entry, frames: &Frames) {
    entry::count(&mut entry.value, frames);
    // SAFETY: no arguments, no preconditions.
    entry.last = unsafe { bpf_ktime_get_ns() };
}

/// Counts a packet of a flow that has no entry.
#[inline(always)]
pub(crate) fn enter(
    skb: Skb,
    key: &[u64; KEY_WORDS],
    packet: &Packet<'_>,
    place: &Place,
    _: &mut FlowValue,
) -> Outcome {
    let Some(words) = NEW.get_ptr_mut(0) else { return Outcome::Overflow };
    // SAFETY: it belongs to this CPU until the program ends.
    let entry: &mut Entry = unsafe { &mut *words.cast() };
    let outcome = first_packet(skb, key, &mut entry.value, packet, place);
    // SAFETY: no arguments, no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    entry.first = now;
    entry.last = now;
    // SAFETY: as above.
    match FLOWS.insert(every_cpu(key), unsafe { &*words }, u64::from(BPF_NOEXIST)) {
        Ok(()) => outcome,
        Err(_) => Outcome::Overflow,
    }
}
