//! Deciding about many records at once, for those who keep records in columns.
//!
//! [`Filter::select`] asks for the records whose value of one field passes a [`Test`] and joins the answers. The caller
//! knows how its columns look: a test of a column of few different values is made once for each value, not once
//! for each record. What comes out is what [`Filter::matches`] would have said of each record.

use super::{Comparison, Expression, Filter, eval};
use crate::field::{Field, Subject, Value};

/// What a filter asks about one field.
#[derive(Clone, Copy, Debug)]
pub struct Test<'f>(&'f Comparison);

impl Test<'_> {
    /// Whether a value passes. The absent value never does.
    pub fn accepts(&self, value: &Value<'_>) -> bool {
        eval::any_accepts(self.0, value)
    }
}

impl Filter {
    /// Which of `records` records match. `accepted` says for each record whether its value of a field passes the test;
    /// it is not asked where earlier answers have decided already.
    pub fn select(
        &self,
        records: usize,
        accepted: &mut dyn FnMut(&'static Field, Test<'_>) -> Vec<bool>,
    ) -> Vec<bool> {
        self.root.as_ref().map_or_else(|| vec![true; records], |root| select(root, accepted))
    }

    /// The fields that it asks about, each once, in the order in which they appear.
    pub fn fields(&self) -> Vec<&'static Field> {
        let mut fields = Vec::new();
        if let Some(root) = &self.root {
            collect(root, &mut fields);
        }
        fields
    }
}

fn select(
    expression: &Expression,
    accepted: &mut dyn FnMut(&'static Field, Test<'_>) -> Vec<bool>,
) -> Vec<bool> {
    match expression {
        Expression::And(parts) => joined(parts, accepted, false),
        Expression::Or(parts) => joined(parts, accepted, true),
        Expression::Not(inner) => inverted(select(inner, accepted)),
        Expression::Comparison(comparison) => {
            let test = Test(comparison);
            let holds = match comparison.subject {
                Subject::One(field) => accepted(field, test),
                Subject::Either { source, destination, .. } => {
                    let mut either = accepted(source, test);
                    if either.contains(&false) {
                        for (either, other) in either.iter_mut().zip(accepted(destination, test)) {
                            *either |= other;
                        }
                    }
                    either
                }
            };
            if comparison.negated { inverted(holds) } else { holds }
        }
    }
}

/// Joins the answers of the parts by "and", or by "or" where `decisive` is true: a record with this answer is decided.
fn joined(
    parts: &[Expression],
    accepted: &mut dyn FnMut(&'static Field, Test<'_>) -> Vec<bool>,
    decisive: bool,
) -> Vec<bool> {
    let mut parts = parts.iter();
    let mut answer = parts.next().map(|first| select(first, accepted)).unwrap_or_default();
    for part in parts {
        if !answer.contains(&!decisive) {
            break;
        }
        for (answer, more) in answer.iter_mut().zip(select(part, accepted)) {
            *answer = if decisive { *answer | more } else { *answer & more };
        }
    }
    answer
}

fn inverted(mut answer: Vec<bool>) -> Vec<bool> {
    for answer in &mut answer {
        *answer = !*answer;
    }
    answer
}

fn collect(expression: &Expression, fields: &mut Vec<&'static Field>) {
    let mut add = |field| {
        if !fields.contains(&field) {
            fields.push(field);
        }
    };
    match expression {
        Expression::And(parts) | Expression::Or(parts) => {
            for part in parts {
                collect(part, fields);
            }
        }
        Expression::Not(inner) => collect(inner, fields),
        Expression::Comparison(Comparison { subject: Subject::One(field), .. }) => add(field),
        Expression::Comparison(Comparison {
            subject: Subject::Either { source, destination, .. }, ..
        }) => {
            add(source);
            add(destination);
        }
    }
}
