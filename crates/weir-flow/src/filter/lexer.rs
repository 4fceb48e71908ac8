//! Splits a filter into words, operators and brackets.

use super::ParseError;

/// A piece of a filter and the bytes it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name, a number, an address, a text; `quoted` if it stood in quotes, so that it cannot be a keyword.
    Word {
        text: String,
        quoted: bool,
    },
    And,
    Or,
    Not,
    In,
    Open,
    Close,
    Comma,
    Equal,
    NotEqual,
    Like,
    NotLike,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer ones first.
const SYMBOLS: [(&str, TokenKind); 15] = [
    ("&&", TokenKind::And),
    ("||", TokenKind::Or),
    ("!=", TokenKind::NotEqual),
    ("!~", TokenKind::NotLike),
    ("<=", TokenKind::LessOrEqual),
    (">=", TokenKind::GreaterOrEqual),
    ("==", TokenKind::Equal),
    ("!", TokenKind::Not),
    ("=", TokenKind::Equal),
    ("~", TokenKind::Like),
    ("<", TokenKind::Less),
    (">", TokenKind::Greater),
    ("(", TokenKind::Open),
    (")", TokenKind::Close),
    (",", TokenKind::Comma),
];

/// Words that need quotes where they are meant as text.
const KEYWORDS: [(&str, TokenKind); 4] =
    [("and", TokenKind::And), ("or", TokenKind::Or), ("not", TokenKind::Not), ("in", TokenKind::In)];

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|(keyword, _)| word.eq_ignore_ascii_case(keyword))
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        if first.is_whitespace() {
            start += first.len_utf8();
            continue;
        }
        let (kind, length) = next(text, start, first)?;
        tokens.push(Token { kind, start, end: start + length });
        start += length;
    }
    Ok(tokens)
}

fn next(text: &str, start: usize, first: char) -> Result<(TokenKind, usize), ParseError> {
    let rest = &text[start..];
    if let Some((symbol, kind)) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        return Ok((kind.clone(), symbol.len()));
    }
    match first {
        '"' | '\'' => quoted(rest, start, first),
        '&' => Err(ParseError::new(start, "a single `&` has no meaning").suggesting("and")),
        _ => {
            let length = word_length(rest);
            if length == 0 {
                return Err(ParseError::new(start, "a single `|` has no meaning here").suggesting("or"));
            }
            let word = &rest[..length];
            let keyword = KEYWORDS.iter().find(|(keyword, _)| word.eq_ignore_ascii_case(keyword));
            let kind = match keyword {
                Some((_, kind)) => kind.clone(),
                None => TokenKind::Word { text: word.to_owned(), quoted: false },
            };
            Ok((kind, length))
        }
    }
}

/// A word ends at a space, a quote or a symbol. One `|` belongs to it (`SYN|ACK`), but not at its start.
fn word_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        let ends = match character {
            '(' | ')' | ',' | '=' | '!' | '<' | '>' | '~' | '&' | '"' | '\'' => true,
            '|' => index == 0 || characters.peek().is_none_or(|(_, following)| *following == '|'),
            other => other.is_whitespace(),
        };
        if ends {
            return index + community_id_padding(&rest[..index], &rest[index..]);
        }
    }
    rest.len()
}

/// Length of the `=` at the end of a Community ID (`1:wCb3OG7yAFWelaUydu0D+125CLM=`), so that it needs no quotes.
fn community_id_padding(word: &str, after: &str) -> usize {
    usize::from(word.len() == 29 && word.starts_with("1:") && after.starts_with('='))
}

fn quoted(rest: &str, start: usize, quote: char) -> Result<(TokenKind, usize), ParseError> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped @ ('\\' | '"' | '\''))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            _ if character == quote => {
                return Ok((TokenKind::Word { text, quoted: true }, index + quote.len_utf8()));
            }
            _ => text.push(character),
        }
    }
    Err(ParseError::new(start, "this quote is never closed"))
}
