//! The flow table: two slots per flow on each CPU, and behind them a hash map.
//!
//! A flow lives where its first packet of the generation found room: in the slot its key hashes to, in that slot's
//! neighbour, else in the overflow map, whose keys carry the CPU. Nothing is ever evicted or moved within a
//! generation, so one look at each place in order finds a flow, and one CPU alone writes an entry.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_common::flow::{FlowKey, FlowValue, KEY_WORDS, Slot, VALUE_WORDS};
use weir_ebpf::skb::Skb;
use weir_packet::Tuple;

pub(crate) use crate::entry::{admission, count};
use crate::{
    account::{self, Place},
    entry::{Outcome, Packet, first_packet},
    maps::{OVERFLOW, PAIR_SHIFT, PAIRS, SEED, SLOTS},
};

/// The entry of a flow that has a slot.
#[inline(always)]
pub(crate) fn find(key: &[u64; KEY_WORDS], place: &Place) -> Option<&'static mut FlowValue> {
    let places = Places::of(key, place)?;
    for slot in [places.first(), places.second()] {
        if is_of(slot, key) {
            return Some(&mut slot.value);
        }
    }
    None
}

/// An entry of the table.
pub(crate) type Entry = FlowValue;

/// The part of an entry that all designs of a table share.
#[inline(always)]
pub(crate) fn value(entry: &mut Entry) -> &mut FlowValue {
    entry
}

/// Counts a packet of a flow that has no slot. `new` is room for a value.
#[inline(always)]
pub(crate) fn enter(
    skb: Skb,
    key: &[u64; KEY_WORDS],
    packet: &Packet<'_>,
    place: &Place,
    new: &mut FlowValue,
) -> Outcome {
    let Some(places) = Places::of(key, place) else { return Outcome::Overflow };
    for slot in [places.first(), places.second()] {
        if slot.key.words[5] == 0 {
            slot.key = FlowKey { words: *key };
            return first_packet(skb, key, &mut slot.value, packet, place);
        }
    }
    overflow(skb, key, packet, place, new)
}

/// Two slots, and which of them a flow prefers.
struct Places {
    pair: *mut Slot,
    /// Offset in bytes.
    preferred: usize,
}

impl Places {
    #[inline(always)]
    fn of(key: &[u64; KEY_WORDS], place: &Place) -> Option<Self> {
        let hash = hash(key, place.spread);
        #[expect(clippy::cast_possible_truncation, reason = "a number below PAIRS is left")]
        let pair = hash.wrapping_shr(PAIR_SHIFT.load()) as u32;
        let pair = SLOTS.get_ptr_mut(place.shard.wrapping_mul(PAIRS.load()).wrapping_add(pair))?;
        Some(Self { pair: pair.cast(), preferred: (hash >> PREFERENCE_BIT) as usize % 2 * size_of::<Slot>() })
    }

    #[inline(always)]
    fn first(&self) -> &'static mut Slot {
        self.at(self.preferred)
    }

    #[inline(always)]
    fn second(&self) -> &'static mut Slot {
        self.at(self.preferred ^ size_of::<Slot>())
    }

    #[inline(always)]
    fn at(&self, offset: usize) -> &'static mut Slot {
        // SAFETY: the offset is that of one of the pair's two slots.
        let slot = unsafe { self.pair.byte_add(offset) };
        // SAFETY: the lookup gave a valid pair, which only this CPU writes in this generation.
        unsafe { &mut *slot }
    }
}

#[inline(always)]
fn is_of(slot: &Slot, key: &[u64; KEY_WORDS]) -> bool {
    let words = &slot.key.words;
    // What differs most often comes first. The upper words of IPv4 addresses are zero in all keys, and word 4 says that
    // this is IPv4.
    words[1] == key[1]
        && words[4] == key[4]
        && words[3] == key[3]
        && words[5] == key[5]
        && (!is_ipv6(key) || words[0] == key[0] && words[2] == key[2])
}

/// Bit of the hash that chooses within a pair; below those that choose the pair, whose number is at most 24.
const PREFERENCE_BIT: u32 = 36;

/// Products of pairs of words, each with a random number added, summed: keys that differ rarely have the same sum, and
/// the products do not wait for each other. The last step is for keys that differ little, such as neighbouring
/// addresses, whose sums lie on a lattice.
///
/// `spread` takes the place of word 5, so that nothing waits for the row.
#[inline(always)]
fn hash(key: &[u64; KEY_WORDS], spread: u64) -> u64 {
    let seed = SEED.load();
    let salted = |word: usize| key[word].wrapping_add(seed[word]);
    let place = spread.wrapping_add(seed[5]);
    let mut sum = salted(1).wrapping_mul(salted(3)).wrapping_add(salted(4).wrapping_mul(place));
    if is_ipv6(key) {
        sum = sum.wrapping_add(key[0].wrapping_mul(seed[0])).wrapping_add(key[2].wrapping_mul(seed[2]));
    }
    sum ^ sum << 27
}

/// Known when the program is compiled, on each of the two paths of plain packets.
#[inline(always)]
fn is_ipv6(key: &[u64; KEY_WORDS]) -> bool {
    let [source_high, source_low, destination_high, destination_low, details, _] = *key;
    Tuple::from_words([source_high, source_low, destination_high, destination_low, details]).is_ipv6()
}

/// Counts a packet of a flow both of whose slots belong to others.
#[inline(always)]
fn overflow(
    skb: Skb,
    key: &[u64; KEY_WORDS],
    packet: &Packet<'_>,
    place: &Place,
    new: &mut FlowValue,
) -> Outcome {
    let Some(map) = OVERFLOW.get(place.generation) else { return Outcome::Overflow };
    if let Some(value) = map.get_ptr_mut(key) {
        // SAFETY: the lookup gave a valid element of 64 bytes, aligned to 8, which only this CPU writes.
        return account::add_packet(unsafe { &mut *value.cast::<FlowValue>() }, packet);
    }
    let outcome = first_packet(skb, key, new, packet, place);
    let words: *const [u64; VALUE_WORDS] = core::ptr::from_ref(new).cast();
    // SAFETY: a value has as many words and no padding.
    let inserted = map.insert(key, unsafe { &*words }, u64::from(BPF_NOEXIST));
    match (inserted, outcome) {
        (Ok(()), _) | (Err(_), Outcome::Filtered) => outcome,
        (Err(_), _) => Outcome::Overflow,
    }
}
