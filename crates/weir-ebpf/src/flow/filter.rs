//! The verdict on a new flow: does it meet the conditions that user space pushed down?

use weir_packet::Tuple;

use crate::maps::FILTER;

/// Bit of word 4 that carries the generation; free in a tuple.
const GENERATION_BIT: u32 = 62;

/// Whether the flow passes the filter of its generation.
#[inline(always)]
pub(crate) fn admits(words: &[u64; 6], generation: u32) -> bool {
    let [a, b, c, d, e, _] = *words;
    weir_admits(a, b, c, d, e | u64::from(generation & 1) << GENERATION_BIT) != 0
}

/// Runs the conditions over the words of a tuple.
///
/// A global function, which the verifier checks once and not anew for each of the many paths that lead here; before
/// 5.12 such functions take numbers only (e5069b9c23b3), and five at most, hence the signature.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_admits(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    let generation = (e >> GENERATION_BIT & 1) as u32;
    let Some(set) = FILTER.get(generation) else { return 1 };
    u64::from(set.admits(&Tuple::from_words([a, b, c, d, e])))
}
