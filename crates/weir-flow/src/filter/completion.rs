//! What can follow in a filter that is being typed.

use super::lexer::{self, Token, TokenKind};
use crate::field::{ALIASES, FIELDS, Field, Kind, Subject, TcpFlags, transport_names};

/// One way to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Byte in the text from which on `text` replaces it.
    pub start: usize,
    /// The word.
    pub text: String,
    /// What it means; may be empty.
    pub help: &'static str,
}

/// Ways to go on with `prefix`, the filter up to the cursor: names of fields, operators, values, `and`, `or`.
pub fn completions(prefix: &str) -> Vec<Completion> {
    let Ok(mut tokens) = lexer::tokens(prefix) else { return Vec::new() };
    let mut start = prefix.len();
    // A word that the cursor touches is still being typed.
    if let Some(last) = tokens.last()
        && last.end == prefix.len()
        && prefix[last.start..].starts_with(|first: char| first.is_alphanumeric())
    {
        start = last.start;
        tokens.pop();
    }
    let typed = prefix[start..].to_lowercase();
    let words = match expected(&tokens) {
        Expected::Name => names(&typed),
        Expected::Operator(field) => operators(field),
        Expected::Value(field) => values(field),
        Expected::Junction => vec![("and".into(), "both"), ("or".into(), "one of them")],
    };
    let fits = |text: &str| text.to_lowercase().starts_with(&typed);
    words
        .into_iter()
        .filter(|(text, _)| fits(text))
        .map(|(text, help)| Completion { start, text, help })
        .collect()
}

enum Expected {
    Name,
    Operator(&'static Field),
    Value(&'static Field),
    Junction,
}

fn expected(tokens: &[Token]) -> Expected {
    let mut expected = Expected::Name;
    for token in tokens {
        expected = match (&token.kind, expected) {
            (TokenKind::Word { text, .. }, Expected::Name) => Subject::by_name(text)
                .map_or(Expected::Junction, |subject| Expected::Operator(subject.field())),
            // A parenthesis may open a list of values.
            (TokenKind::Open, Expected::Value(field)) => Expected::Value(field),
            // `not` starts a condition, or `not in`.
            (TokenKind::Not, Expected::Operator(field)) => Expected::Operator(field),
            (TokenKind::And | TokenKind::Or | TokenKind::Not | TokenKind::Open, _) => Expected::Name,
            (TokenKind::Comma, _) => last_field(tokens, token).map_or(Expected::Junction, Expected::Value),
            (TokenKind::Word { .. } | TokenKind::Close, _) => Expected::Junction,
            (_, Expected::Operator(field)) => Expected::Value(field),
            (_, _) => Expected::Junction,
        };
    }
    expected
}

/// The field whose list of values `comma` stands in: the last word before an operator.
fn last_field(tokens: &[Token], comma: &Token) -> Option<&'static Field> {
    let before = tokens.iter().take_while(|token| token.start < comma.start);
    let words = before.filter_map(|token| match &token.kind {
        TokenKind::Word { text, quoted: false } => Subject::by_name(text),
        _ => None,
    });
    words.last().map(|subject| subject.field())
}

fn names(typed: &str) -> Vec<(String, &'static str)> {
    let mut names: Vec<_> = FIELDS
        .iter()
        .filter(|field| field.filterable)
        .map(|field| (field.name.to_owned(), field.doc))
        .collect();
    for alias in ALIASES {
        let help = match alias.fields {
            [only] => only,
            _ => "either end",
        };
        names.push((alias.name.to_owned(), help));
    }
    for (short, long) in [("src.", "source."), ("dst.", "destination.")] {
        if typed.starts_with(short) {
            let of_end = FIELDS.iter().filter_map(|field| Some((field.name.strip_prefix(long)?, field.doc)));
            names.extend(of_end.map(|(rest, doc)| (format!("{short}{rest}"), doc)));
        }
    }
    names
}

fn operators(field: &Field) -> Vec<(String, &'static str)> {
    let mut operators = vec![("=", "is"), ("!=", "is not"), ("in", "is one of")];
    match field.kind {
        Kind::Text => operators.push(("~", "contains, or fits a pattern with * and ?")),
        Kind::Flags => operators.push(("~", "has all of")),
        Kind::Port | Kind::Integer | Kind::Bytes | Kind::Duration | Kind::Timestamp => {
            operators.extend([("<", "less"), ("<=", "at most"), (">", "more"), (">=", "at least")]);
        }
        Kind::Address | Kind::Protocol | Kind::Boolean => {}
    }
    operators.into_iter().map(|(text, help)| (text.to_owned(), help)).collect()
}

fn values(field: &Field) -> Vec<(String, &'static str)> {
    let texts: Vec<&'static str> = match field.kind {
        Kind::Protocol => transport_names().collect(),
        Kind::Flags => TcpFlags::names().collect(),
        Kind::Boolean => vec!["true", "false"],
        _ => field.values.to_vec(),
    };
    texts.into_iter().map(|text| (text.to_owned(), "")).collect()
}
