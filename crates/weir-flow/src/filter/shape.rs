//! What a filter is made of, for those who let somebody else decide about records, such as a database.
//!
//! [`Filter::shape`] gives the same conditions as [`Filter::matches`] in terms that need no knowledge of the language:
//! short names are fields, orders are ranges, and no condition is negated in itself.

use std::net::IpAddr;

use super::{Comparison, Expression, Filter, Operator, Pattern};
use crate::field::{Field, Subject, TcpFlags};

/// A condition on records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape<'f> {
    /// All hold.
    All(Vec<Self>),
    /// One holds.
    Any(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// The value of the field is there and fits one of these. Where there are none, it never holds.
    Fits(&'static Field, Vec<Fit<'f>>),
}

/// What a value is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit<'f> {
    /// An address whose first bits are these.
    Prefix(IpAddr, u8),
    /// A number from the first to the second, both included. Durations and moments are nanoseconds, protocols their numbers.
    Between(u64, u64),
    /// Exactly these flags.
    Flags(TcpFlags),
    /// These flags, and maybe more.
    AllFlags(TcpFlags),
    /// This truth.
    Truth(bool),
    /// This text.
    Text(&'f str),
    /// Text that contains this one, or is described by it as a whole where it has `*` (any text) or `?` (any character).
    /// The case of ASCII letters does not matter.
    Like(&'f str),
}

impl Filter {
    /// What it is made of; nothing if all records match.
    pub fn shape(&self) -> Option<Shape<'_>> {
        self.root.as_ref().map(of)
    }
}

fn of(expression: &Expression) -> Shape<'_> {
    match expression {
        Expression::And(parts) => Shape::All(parts.iter().map(of).collect()),
        Expression::Or(parts) => Shape::Any(parts.iter().map(of).collect()),
        Expression::Not(inner) => Shape::Not(Box::new(of(inner))),
        Expression::Comparison(comparison) => {
            let fits = |field| Shape::Fits(field, fits(comparison));
            let holds = match comparison.subject {
                Subject::One(field) => fits(field),
                Subject::Either { source, destination, .. } => {
                    Shape::Any(vec![fits(source), fits(destination)])
                }
            };
            if comparison.negated { Shape::Not(Box::new(holds)) } else { holds }
        }
    }
}

fn fits(comparison: &Comparison) -> Vec<Fit<'_>> {
    comparison.patterns.iter().filter_map(|pattern| fit(comparison.operator, pattern)).collect()
}

/// `None` where nothing fits.
fn fit(operator: Operator, pattern: &Pattern) -> Option<Fit<'_>> {
    Some(match pattern {
        Pattern::Prefix(prefix) => Fit::Prefix(prefix.address, prefix.length),
        Pattern::Range(low, high) => {
            let (low, high) = match operator {
                Operator::Equal | Operator::Like => (*low, *high),
                Operator::Less => (0, low.checked_sub(1)?),
                Operator::LessOrEqual => (0, *low),
                Operator::Greater => (low.checked_add(1)?, u64::MAX),
                Operator::GreaterOrEqual => (*low, u64::MAX),
            };
            Fit::Between(low, high)
        }
        Pattern::Flags(flags) if operator == Operator::Like => Fit::AllFlags(TcpFlags(*flags)),
        Pattern::Flags(flags) => Fit::Flags(TcpFlags(*flags)),
        Pattern::Boolean(truth) => Fit::Truth(*truth),
        Pattern::Text(text) if operator == Operator::Like => Fit::Like(text),
        Pattern::Text(text) => Fit::Text(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        format!("{:?}", Filter::parse(text).unwrap().shape())
    }

    #[test]
    fn orders_are_ranges_and_short_names_are_fields() {
        let same = [
            ("flow.bytes>10", "flow.bytes>=11"),
            ("flow.bytes<10", "flow.bytes<=9"),
            ("port!=53", "not (sport=53 or dport=53)"),
            ("proto not in 6,17", "not proto in 6,17"),
        ];
        for (left, right) in same {
            assert_eq!(shape(left), shape(right), "{left}");
        }
        assert_eq!(Filter::default().shape(), None);
    }

    #[test]
    fn what_can_never_be_fits_nothing() {
        for text in ["flow.bytes<0", "flow.bytes>18446744073709551615"] {
            let Ok(filter) = Filter::parse(text) else { continue };
            assert!(matches!(filter.shape(), Some(Shape::Fits(_, fits)) if fits.is_empty()), "{text}");
        }
    }
}
