//! The filter language: `proto=tcp and (dst.port in 80,443 or host=10.0.0.0/8) and flow.bytes>10k`.
//!
//! [`Filter::parse`] reads it, [`Filter::matches`] decides about a record exactly, [`Filter::pushdown`] gives the
//! part that the kernel can decide about a packet, `Display` writes canonical text that reads back as the same
//! filter. `docs/reference/filters.md` describes the language to users.
//!
//! A condition on something that a record does not have is false, and `!=`, `!~` and `not in` are true exactly where
//! `=`, `~` and `in` are false. A short name for either end (`host`, `port`, `proc`) asks whether *any* end fits, so
//! `port!=53` means that neither end has port 53.

mod columns;
mod completion;
mod display;
mod eval;
mod lexer;
mod literal;
mod parser;
pub mod pushdown;
mod shape;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::{Record, field::Subject};

pub use self::{
    columns::Test,
    completion::{Completion, completions},
    pushdown::{Condition, Pushdown},
    shape::{Fit, Shape},
};

/// Longest filter that is read, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;

/// Deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 64;

/// A condition on records. The default one holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    root: Option<Expression>,
}

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", self.suggestion.as_ref().map(|text| format!(" (did you mean `{text}`?)")).unwrap_or_default())]
pub struct ParseError {
    /// Byte in the text at which the offending part starts; the length of the text where it ended too early.
    pub position: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    /// All hold; two or more, none of them `And`.
    And(Vec<Self>),
    /// One holds; two or more, none of them `Or`.
    Or(Vec<Self>),
    Not(Box<Self>),
    Comparison(Comparison),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    subject: Subject,
    operator: Operator,
    /// `!=`, `!~`, `not in`; never with an order.
    negated: bool,
    /// Alternatives, one or more; exactly one range of one number with an order.
    patterns: Vec<Pattern>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Like,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Prefix(Prefix),
    /// From the first number to the second, both included. Durations and timestamps are nanoseconds.
    Range(u64, u64),
    Flags(u16),
    Boolean(bool),
    Text(String),
}

/// Addresses of one family that start with the same bits; the other bits are zero here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Filter {
    /// Reads a filter. Text without anything but spaces is the filter that all records match.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map(|root| Self { root })
    }

    /// Whether all records match, whatever they hold.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether `record` matches.
    pub fn matches(&self, record: &Record) -> bool {
        self.root.as_ref().is_none_or(|root| root.matches(record))
    }

    /// What can be decided from the 5-tuple of a packet of either direction: passes every packet of every flow that
    /// matches, and maybe more.
    pub fn pushdown(&self) -> Pushdown {
        self.root.as_ref().map(pushdown::derive).unwrap_or_default()
    }
}

impl std::str::FromStr for Filter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl ParseError {
    fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into(), suggestion: None }
    }

    fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }

    /// The line of `text` that holds the error and, below it, a caret under the place.
    pub fn caret(&self, text: &str) -> String {
        let position = text.floor_char_boundary(self.position.min(text.len()));
        let start = text[..position].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[position..].find('\n').map_or(text.len(), |newline| position + newline);
        let indent = " ".repeat(text[start..position].chars().count());
        format!("{}\n{indent}^", text[start..end].replace('\t', " "))
    }
}
