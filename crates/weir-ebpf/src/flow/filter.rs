//! The verdict on a new flow: does it meet the conditions that user space pushed down?
//!
//! Conditions see both ends alike, so that a flow and its replies get the same verdict. What they let through is a
//! superset of what the user asked for; the exact filter runs on the record in user space.

use weir_common::flow::{FilterTerm, TERM_ADDRESS, TERM_FAMILY, TERM_PORT, TERM_PROTOCOL};
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
    #[expect(clippy::cast_possible_truncation, reason = "one bit")]
    let generation = (e >> GENERATION_BIT & 1) as u32;
    let Some(set) = FILTER.get(generation) else { return 1 };
    let tuple = Tuple::from_words([a, b, c, d, e]);
    // Clauses are numbered from 1, so that the first condition starts one like any other.
    let mut clause = 0;
    let mut holds = 1;
    for term in &set.terms {
        if term.field == 0 {
            break;
        }
        if term.clause != clause {
            if holds == 0 {
                return 0;
            }
            clause = term.clause;
            holds = 0;
        }
        holds |= u64::from(meets(&tuple, term));
    }
    holds
}

#[inline(always)]
fn meets(tuple: &Tuple, term: &FilterTerm) -> bool {
    let within = |value: u16| (value >= term.low) & (value <= term.high);
    let [a, b, c, d, _] = tuple.words();
    match term.field {
        TERM_ADDRESS => {
            let differs = |upper: u64, lower: u64| {
                (upper & term.mask[0]) ^ term.address[0] | (lower & term.mask[1]) ^ term.address[1]
            };
            (differs(a, b) == 0) | (differs(c, d) == 0)
        }
        TERM_PORT => within(tuple.source_port()) | within(tuple.destination_port()),
        TERM_PROTOCOL => within(u16::from(tuple.protocol())),
        TERM_FAMILY => tuple.is_ipv6() == (term.low != 0),
        // A condition that this version does not know must not hide anything.
        _ => true,
    }
}
