//! The part of a filter that can be decided from the 5-tuple of a single packet, in the kernel.
//!
//! [`Pushdown`] is a superset: it passes every packet of every flow that the filter matches, in either direction. It
//! knows nothing of source and destination (a condition on one of them becomes one on either end), so that replies
//! pass as well, and it has no negation. What cannot be expressed passes. [`Pushdown::admits`] is the definition
//! that the kernel program follows.
//!
//! A condition on ports may admit ICMP, whose type and code stand where ports do; the exact filter then rejects it.

use std::net::IpAddr;

use weir_packet::{Tuple, ipv4_words, ipv6_words, protocol};

use super::{Comparison, Expression, Operator, Pattern, Prefix};

/// Most conditions that the kernel takes, over all clauses.
pub const MAX_CONDITIONS: usize = 32;

/// Most clauses that are carried along while clauses are combined.
const MAX_CLAUSES: usize = 32;

/// Most clauses of each side that are multiplied out.
const MAX_FACTORS: usize = 16;

/// A conjunction of alternatives. Without clauses, everything passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushdown {
    /// Of each clause, at least one condition must hold. No clause is empty, and all together have at most
    /// [`MAX_CONDITIONS`].
    pub clauses: Vec<Vec<Condition>>,
}

/// A condition on a tuple that is the same for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The family is IPv6, or IPv4.
    Family {
        /// Which of them.
        is_ipv6: bool,
    },
    /// The protocol is one of these.
    ProtocolRange {
        /// The first.
        low: u8,
        /// The last.
        high: u8,
    },
    /// Either port, as the tuple has it, is one of these.
    PortRange {
        /// The first.
        low: u16,
        /// The last.
        high: u16,
    },
    /// Either address, masked, is this one.
    Prefix {
        /// Words of the address as in a tuple, already masked.
        address: [u64; 2],
        /// Words of the mask.
        mask: [u64; 2],
    },
}

type Clause = Vec<Condition>;

impl Pushdown {
    /// Whether a packet with this tuple passes.
    pub fn admits(&self, tuple: &Tuple) -> bool {
        self.clauses.iter().all(|clause| clause.iter().any(|condition| condition.holds(tuple)))
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }
}

impl Condition {
    /// Whether it holds for a packet with this tuple.
    pub fn holds(&self, tuple: &Tuple) -> bool {
        match *self {
            Self::Family { is_ipv6 } => tuple.is_ipv6() == is_ipv6,
            Self::ProtocolRange { low, high } => (low..=high).contains(&tuple.protocol()),
            Self::PortRange { low, high } => {
                (low..=high).contains(&tuple.source_port())
                    || (low..=high).contains(&tuple.destination_port())
            }
            Self::Prefix { address, mask } => {
                let [a, b, c, d, _] = tuple.words();
                [[a, b], [c, d]].iter().any(|end| [end[0] & mask[0], end[1] & mask[1]] == address)
            }
        }
    }

    /// Whether every tuple for which `other` holds is one for which this holds.
    fn covers(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Prefix { address, mask }, Self::Prefix { address: inner, mask: inner_mask }) => (0..2)
                .all(|word| {
                    mask[word] & inner_mask[word] == mask[word] && inner[word] & mask[word] == address[word]
                }),
            (Self::ProtocolRange { low, high }, Self::ProtocolRange { low: inner, high: inner_high }) => {
                low <= inner && inner_high <= high
            }
            (Self::PortRange { low, high }, Self::PortRange { low: inner, high: inner_high }) => {
                low <= inner && inner_high <= high
            }
            (left, right) => left == right,
        }
    }
}

pub(super) fn derive(root: &Expression) -> Pushdown {
    let mut clauses = clauses_of(root, false);
    // Whole clauses are left out where there is no room: that admits more, never less. Short ones say most.
    clauses.sort_by_key(Vec::len);
    let mut room = MAX_CONDITIONS;
    clauses.retain(|clause| {
        let fits = clause.len() <= room;
        if fits {
            room -= clause.len();
        }
        fits
    });
    Pushdown { clauses }
}

/// Clauses that hold wherever the expression (or its negation) does. None means that nothing is known.
fn clauses_of(expression: &Expression, negated: bool) -> Vec<Clause> {
    match (expression, negated) {
        (Expression::Not(inner), _) => clauses_of(inner, !negated),
        (Expression::And(parts), false) | (Expression::Or(parts), true) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(clauses_of(part, negated));
            }
            tidy(all)
        }
        (Expression::Or(parts), false) | (Expression::And(parts), true) => {
            let mut parts = parts.iter();
            let mut any = parts.next().map(|part| clauses_of(part, negated)).unwrap_or_default();
            for part in parts {
                // `true or x` is true.
                if any.is_empty() {
                    break;
                }
                any = either(&any, &clauses_of(part, negated));
            }
            any
        }
        (Expression::Comparison(comparison), _) => {
            tidy(alternatives(comparison, negated != comparison.negated).into_iter().collect())
        }
    }
}

/// `(a and b) or (c and d)` is `(a or c) and (a or d) and (b or c) and (b or d)`.
fn either(left: &[Clause], right: &[Clause]) -> Vec<Clause> {
    let mut product = Vec::new();
    for one in left.iter().take(MAX_FACTORS) {
        for other in right.iter().take(MAX_FACTORS) {
            product.push([one.as_slice(), other.as_slice()].concat());
        }
    }
    tidy(product)
}

/// The one clause that a comparison, or its negation, amounts to; `None` where it says nothing about the tuple.
fn alternatives(comparison: &Comparison, negated: bool) -> Option<Clause> {
    let field = comparison.subject.field();
    match field.name {
        "network.transport" => {
            let ranges = comparison.patterns.iter().filter_map(protocol_range);
            // Every packet has exactly one protocol, so here alone a negation says as much.
            if negated {
                Some(complement(ranges.collect()))
            } else {
                Some(ranges.map(into_condition).collect())
            }
        }
        "network.type" => {
            comparison.patterns.iter().map(|pattern| family(pattern, comparison.operator, negated)).collect()
        }
        _ if negated => None,
        "source.address" | "destination.address" => comparison.patterns.iter().map(prefix).collect(),
        "source.port" | "destination.port" => {
            comparison.patterns.iter().map(|pattern| port_range(pattern, comparison.operator)).collect()
        }
        "flow.tcp.flags" | "flow.reverse.tcp.flags" => Some(vec![only(protocol::TCP)]),
        "flow.icmp.type" | "flow.icmp.code" => Some(vec![only(protocol::ICMP), only(protocol::ICMPV6)]),
        _ => None,
    }
}

const fn only(number: u8) -> Condition {
    Condition::ProtocolRange { low: number, high: number }
}

fn protocol_range(pattern: &Pattern) -> Option<(u8, u8)> {
    match pattern {
        Pattern::Range(low, high) => Some((u8::try_from(*low).ok()?, u8::try_from(*high).ok()?)),
        _ => None,
    }
}

const fn into_condition((low, high): (u8, u8)) -> Condition {
    Condition::ProtocolRange { low, high }
}

/// All protocols but those in `ranges`.
fn complement(mut ranges: Vec<(u8, u8)>) -> Clause {
    ranges.sort_unstable();
    let mut rest = Vec::new();
    let mut next = Some(0_u8);
    for (low, high) in ranges {
        if let Some(first) = next
            && first < low
        {
            rest.push(Condition::ProtocolRange { low: first, high: low - 1 });
        }
        next = next.and_then(|first| Some(first.max(high.checked_add(1)?)));
    }
    rest.extend(next.map(|first| Condition::ProtocolRange { low: first, high: u8::MAX }));
    rest
}

/// The family that a pattern means. `network.type` is one of two words, so not being one is being the other.
fn family(pattern: &Pattern, operator: Operator, negated: bool) -> Option<Condition> {
    match (pattern, operator) {
        (Pattern::Text(text), Operator::Equal) => {
            Some(Condition::Family { is_ipv6: (text == "ipv6") != negated })
        }
        _ => None,
    }
}

fn port_range(pattern: &Pattern, operator: Operator) -> Option<Condition> {
    let Pattern::Range(low, high) = pattern else { return None };
    let (low, high) = (u16::try_from(*low).ok()?, u16::try_from(*high).ok()?);
    let (low, high) = match operator {
        Operator::Equal | Operator::Like => (low, high),
        // No port is below 0 or above 65535: these may admit one port too many, which is allowed.
        Operator::Less => (0, high.saturating_sub(1)),
        Operator::LessOrEqual => (0, high),
        Operator::Greater => (low.saturating_add(1), u16::MAX),
        Operator::GreaterOrEqual => (low, u16::MAX),
    };
    Some(Condition::PortRange { low, high })
}

fn prefix(pattern: &Pattern) -> Option<Condition> {
    let Pattern::Prefix(Prefix { address, length }) = pattern else { return None };
    if *length == 0 {
        return Some(Condition::Family { is_ipv6: address.is_ipv6() });
    }
    Some(match address {
        IpAddr::V4(address) => {
            Condition::Prefix { address: ipv4_words(address.octets()), mask: mask(96 + u32::from(*length)) }
        }
        IpAddr::V6(address) => {
            Condition::Prefix { address: ipv6_words(address.octets()), mask: mask(u32::from(*length)) }
        }
    })
}

/// Words of a mask of `length` bits, 1 to 128.
fn mask(length: u32) -> [u64; 2] {
    ipv6_words((u128::MAX << (128 - length)).to_be_bytes())
}

/// Makes each clause short, and leaves out those that say nothing, that another one implies, or that are too many.
fn tidy(clauses: Vec<Clause>) -> Vec<Clause> {
    let mut kept: Vec<Clause> = Vec::new();
    let mut shortened: Vec<Clause> = clauses.into_iter().filter_map(shorten).collect();
    shortened.sort_by_key(Vec::len);
    for clause in shortened {
        let implied = |shorter: &Clause| {
            shorter.iter().all(|condition| clause.iter().any(|wider| wider.covers(condition)))
        };
        if kept.len() < MAX_CLAUSES && !kept.iter().any(implied) {
            kept.push(clause);
        }
    }
    kept
}

/// Joins ranges that touch and drops what another alternative covers; `None` for a clause that is always true, too
/// long, or never true (for which there is no form: passing everything is right, if not sharp).
fn shorten(mut clause: Clause) -> Option<Clause> {
    clause.sort_unstable();
    clause.dedup();
    let mut short: Clause = Vec::with_capacity(clause.len());
    for condition in clause {
        if let Some(joined) = short.last().and_then(|last| joined(*last, condition)) {
            short.pop();
            short.push(joined);
        } else if !short.iter().any(|wider| wider.covers(&condition)) {
            // Sorted by the masked address, so a wider prefix can come after a narrower one only with the same bits.
            short.retain(|narrower| !condition.covers(narrower));
            short.push(condition);
        }
    }
    let is_true =
        short.iter().any(|condition| {
            matches!(
                condition,
                Condition::ProtocolRange { low: 0, high: u8::MAX }
                    | Condition::PortRange { low: 0, high: u16::MAX }
            )
        }) || [false, true].iter().all(|is_ipv6| short.contains(&Condition::Family { is_ipv6: *is_ipv6 }));
    (!is_true && !short.is_empty() && short.len() <= MAX_CONDITIONS).then_some(short)
}

/// One range for two that overlap or touch, the second not starting before the first.
fn joined(first: Condition, second: Condition) -> Option<Condition> {
    match (first, second) {
        (Condition::ProtocolRange { low, high }, Condition::ProtocolRange { low: following, high: last })
            if u16::from(following) <= u16::from(high) + 1 =>
        {
            Some(Condition::ProtocolRange { low, high: high.max(last) })
        }
        (Condition::PortRange { low, high }, Condition::PortRange { low: following, high: last })
            if u32::from(following) <= u32::from(high) + 1 =>
        {
            Some(Condition::PortRange { low, high: high.max(last) })
        }
        _ => None,
    }
}
