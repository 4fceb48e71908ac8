//! Conditions that user space pushed down, evaluated on the tuple of a packet.
//!
//! Conditions see both ends alike, so that a flow and its replies get the same verdict. What they let through is a
//! superset of what the user asked for; the exact filter runs in user space.

use weir_common::flow::{FILTER_TERMS, FilterTerm, TERM_ADDRESS, TERM_FAMILY, TERM_PORT, TERM_PROTOCOL};
use weir_packet::Tuple;

/// Conditions in a map. None means that everything passes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FilterSet {
    /// The conditions; the first with field 0 ends the list.
    pub terms: [FilterTerm; FILTER_TERMS],
}

impl FilterSet {
    /// Whether everything passes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.terms[0].field == 0
    }

    /// Whether the tuple meets the conditions.
    ///
    /// To be called from a global function, which the verifier checks once and not anew for each of the many paths
    /// that lead there.
    #[inline(always)]
    pub fn admits(&self, tuple: &Tuple) -> bool {
        // Clauses are numbered from 1, so that the first condition starts one like any other.
        let mut clause = 0;
        let mut holds = true;
        for term in &self.terms {
            if term.field == 0 {
                break;
            }
            if term.clause != clause {
                if !holds {
                    return false;
                }
                clause = term.clause;
                holds = false;
            }
            holds |= meets(tuple, term);
        }
        holds
    }
}

#[inline(always)]
#[expect(clippy::needless_bitwise_bool, reason = "fewer branches, fewer paths for the verifier")]
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
