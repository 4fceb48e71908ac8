//! One preallocated hash map for all CPUs: packets and bytes are added atomically, time is in jiffies.
//!
//! The other fields of an entry are written plainly, as tools of this kind do: what two CPUs do to them at the same
//! moment may get lost.

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, macros::btf_map};
use weir_common::flow::{FlowValue, KEY_WORDS, VALUE_WORDS};
use weir_ebpf::skb::{Frames, Skb};

pub(crate) use crate::entry::admission;
use crate::{
    account::Place,
    entry::{Outcome, Packet, first_packet, packets, touch},
    key::every_cpu,
};

/// Flows of all CPUs: twice as many as the benchmark has.
#[btf_map]
static FLOWS: HashMap<[u64; KEY_WORDS], [u64; VALUE_WORDS], 131_072> = HashMap::new();

/// The entry of a flow.
#[inline(always)]
pub(crate) fn find(key: &[u64; KEY_WORDS], _: &Place) -> Option<&'static mut FlowValue> {
    let value = FLOWS.get_ptr_mut(every_cpu(key))?;
    // SAFETY: a valid element of 64 bytes, aligned to 8.
    Some(unsafe { &mut *value.cast() })
}

/// An entry of the table.
pub(crate) type Entry = FlowValue;

/// The part of an entry that all designs of a table share.
#[inline(always)]
pub(crate) fn value(entry: &mut Entry) -> &mut FlowValue {
    entry
}

/// Adds what a packet measures to an entry.
#[inline(always)]
pub(crate) fn count(value: &mut FlowValue, frames: &Frames) {
    // SAFETY: a field of a valid element, aligned to its size.
    unsafe { atomic_xadd::<u64, u64, { Relaxed }>(&raw mut value.bytes, frames.count.bytes) };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u32, u32, { Relaxed }>(&raw mut value.packets, packets(frames)) };
    touch(value, frames);
}

/// Counts a packet of a flow that has no entry.
#[inline(always)]
pub(crate) fn enter(
    skb: Skb,
    key: &[u64; KEY_WORDS],
    packet: &Packet<'_>,
    place: &Place,
    new: &mut FlowValue,
) -> Outcome {
    let outcome = first_packet(skb, key, new, packet, place);
    let words: *const [u64; VALUE_WORDS] = core::ptr::from_ref(new).cast();
    // SAFETY: a value has as many words and no padding.
    match FLOWS.insert(every_cpu(key), unsafe { &*words }, u64::from(BPF_NOEXIST)) {
        Ok(()) => outcome,
        Err(_) => Outcome::Overflow,
    }
}
