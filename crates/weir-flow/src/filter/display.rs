//! Canonical text of a filter: full names, plain numbers, no needless parentheses.

use std::fmt::{self, Display as _};

use super::{Comparison, Expression, Filter, Operator, literal::Written};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.as_ref().map_or(Ok(()), |root| root.fmt(f))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) => join(parts, " and ", |part| matches!(part, Self::Or(_)), f),
            Self::Or(parts) => join(parts, " or ", |_| false, f),
            Self::Not(inner) => {
                f.write_str("not ")?;
                nested(inner, matches!(**inner, Self::And(_) | Self::Or(_)), f)
            }
            Self::Comparison(comparison) => comparison.fmt(f),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match (self.operator, self.negated, self.patterns.len()) {
            (Operator::Equal, false, 1) => "=",
            (Operator::Equal, true, 1) => "!=",
            (Operator::Equal, false, _) => " in ",
            (Operator::Equal, true, _) => " not in ",
            (Operator::Like, false, _) => "~",
            (Operator::Like, true, _) => "!~",
            (Operator::Less, ..) => "<",
            (Operator::LessOrEqual, ..) => "<=",
            (Operator::Greater, ..) => ">",
            (Operator::GreaterOrEqual, ..) => ">=",
        };
        write!(f, "{}{operator}", self.subject.name())?;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", Written(self.subject.field().kind, pattern))?;
        }
        Ok(())
    }
}

fn join(
    parts: &[Expression],
    separator: &str,
    needs_parentheses: fn(&Expression) -> bool,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        nested(part, needs_parentheses(part), f)?;
    }
    Ok(())
}

fn nested(inner: &Expression, in_parentheses: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if in_parentheses { write!(f, "({inner})") } else { inner.fmt(f) }
}
