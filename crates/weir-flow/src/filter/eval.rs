//! Decides whether a record matches.

use super::{Comparison, Expression, Operator, Pattern};
use crate::{
    Record,
    field::{Subject, TcpFlags, Value},
};

impl Expression {
    pub(super) fn matches(&self, record: &Record) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.matches(record)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(record)),
            Self::Not(inner) => !inner.matches(record),
            Self::Comparison(comparison) => comparison.matches(record),
        }
    }
}

impl Comparison {
    fn matches(&self, record: &Record) -> bool {
        let holds = match self.subject {
            Subject::One(field) => self.accepts(&field.value(record)),
            Subject::Either { source, destination, .. } => {
                self.accepts(&source.value(record)) || self.accepts(&destination.value(record))
            }
        };
        holds != self.negated
    }

    fn accepts(&self, value: &Value<'_>) -> bool {
        any_accepts(self, value)
    }
}

/// Whether one of the alternatives fits the value, before negation.
pub(super) fn any_accepts(comparison: &Comparison, value: &Value<'_>) -> bool {
    comparison.patterns.iter().any(|pattern| accepts(comparison.operator, pattern, value))
}

fn accepts(operator: Operator, pattern: &Pattern, value: &Value<'_>) -> bool {
    match (pattern, value) {
        (Pattern::Prefix(prefix), Value::Address(address)) => prefix.contains(*address),
        (Pattern::Range(low, high), value) => number(value).is_some_and(|number| match operator {
            Operator::Equal | Operator::Like => (*low..=*high).contains(&number),
            Operator::Less => number < *low,
            Operator::LessOrEqual => number <= *low,
            Operator::Greater => number > *low,
            Operator::GreaterOrEqual => number >= *low,
        }),
        (Pattern::Flags(wanted), Value::Flags(flags)) if operator == Operator::Like => {
            flags.has_all(TcpFlags(*wanted))
        }
        (Pattern::Flags(wanted), Value::Flags(flags)) => flags.0 == *wanted,
        (Pattern::Boolean(wanted), Value::Boolean(truth)) => wanted == truth,
        (Pattern::Text(pattern), Value::Text(text)) if operator == Operator::Like => is_like(text, pattern),
        (Pattern::Text(pattern), Value::Text(text)) => pattern == text,
        _ => false,
    }
}

/// The number of whatever can be put in order; durations and moments in nanoseconds.
fn number(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Protocol(number) => Some((*number).into()),
        Value::Duration(duration) => Some(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        Value::Timestamp(wall) => Some(wall.0),
        Value::Absent | Value::Address(_) | Value::Flags(_) | Value::Boolean(_) | Value::Text(_) => None,
    }
}

/// Whether `text` contains `pattern` or, where that has `*` or `?`, is described by it as a whole. The case of ASCII
/// letters does not matter.
fn is_like(text: &str, pattern: &str) -> bool {
    if pattern.contains(['*', '?']) {
        return fits_glob(text, pattern);
    }
    text.as_bytes().windows(pattern.len()).any(|window| window.eq_ignore_ascii_case(pattern.as_bytes()))
}

/// Goes back to the last `*` alone, so the time is at most the product of the lengths.
fn fits_glob(text: &str, pattern: &str) -> bool {
    let (mut text_rest, mut pattern_rest) = (text.chars(), pattern.chars());
    // What follows the last `*`, and the text that is left if that `*` stands for one letter more.
    let mut retry = None;
    loop {
        let mut after = pattern_rest.clone();
        match (after.next(), text_rest.clone().next()) {
            (Some('*'), _) => {
                retry = Some((after.clone(), text_rest.clone()));
                pattern_rest = after;
                continue;
            }
            (None, None) => return true,
            (Some(wanted), Some(letter)) if wanted == '?' || wanted.eq_ignore_ascii_case(&letter) => {
                text_rest.next();
                pattern_rest = after;
                continue;
            }
            _ => {}
        }
        let Some((after_star, skipped)) = &mut retry else { return false };
        if skipped.next().is_none() {
            return false;
        }
        text_rest = skipped.clone();
        pattern_rest = after_star.clone();
    }
}
