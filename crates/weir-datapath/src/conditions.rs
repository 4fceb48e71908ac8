//! The filter in the form that the kernel programs read.

use weir_common::flow::{FILTER_TERMS, FilterTerm, TERM_ADDRESS, TERM_FAMILY, TERM_PORT, TERM_PROTOCOL};
use weir_flow::filter::{Condition, Pushdown};
use zerocopy::IntoBytes as _;

/// Words of a filter in the kernel's map.
pub(crate) const FILTER_WORDS: usize = FILTER_TERMS * size_of::<FilterTerm>() / 8;

/// One value of the `FILTER` map.
///
/// Clauses that no longer fit are left out, which lets more through and never less: what the kernel passes is a
/// superset, and the exact filter runs in user space.
pub(crate) fn words(filter: &Pushdown) -> [u64; FILTER_WORDS] {
    let terms = terms(filter);
    let mut words = [0; FILTER_WORDS];
    for (word, chunk) in words.iter_mut().zip(terms.as_slice().as_bytes().chunks_exact(8)) {
        *word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight bytes"));
    }
    words
}

fn terms(filter: &Pushdown) -> Vec<FilterTerm> {
    let mut terms = Vec::new();
    let mut number = 0;
    for clause in &filter.clauses {
        if clause.is_empty() || terms.len() + clause.len() > FILTER_TERMS {
            continue;
        }
        number += 1;
        terms.extend(clause.iter().map(|condition| FilterTerm { clause: number, ..term(condition) }));
    }
    terms
}

fn term(condition: &Condition) -> FilterTerm {
    match *condition {
        Condition::Family { is_ipv6 } => {
            FilterTerm { field: TERM_FAMILY, low: u16::from(is_ipv6), ..FilterTerm::default() }
        }
        Condition::ProtocolRange { low, high } => {
            FilterTerm { field: TERM_PROTOCOL, low: low.into(), high: high.into(), ..FilterTerm::default() }
        }
        Condition::PortRange { low, high } => {
            FilterTerm { field: TERM_PORT, low, high, ..FilterTerm::default() }
        }
        Condition::Prefix { address, mask } => {
            FilterTerm { field: TERM_ADDRESS, address, mask, ..FilterTerm::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: u16) -> Condition {
        Condition::PortRange { low: port, high: port }
    }

    #[test]
    fn clauses_are_numbered_from_one() {
        let filter = Pushdown { clauses: vec![vec![port(80), port(443)], vec![port(53)]] };
        let terms = terms(&filter);
        assert_eq!(terms.iter().map(|term| term.clause).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(terms[2].low, 53);
        assert_eq!(words(&Pushdown::default()), [0; FILTER_WORDS]);
    }

    #[test]
    fn a_clause_that_does_not_fit_is_left_out_whole() {
        let long = (0..31).map(port).collect();
        let filter = Pushdown { clauses: vec![long, vec![port(80), port(443)], vec![port(53)]] };
        let terms = terms(&filter);
        assert_eq!(terms.len(), 32);
        assert_eq!(terms.last().map(|term| (term.clause, term.low)), Some((2, 53)));
    }
}
