//! Puts the pieces of a filter together.

use super::{
    Comparison, Expression, MAX_DEPTH, MAX_LENGTH, Operator, ParseError, Pattern,
    lexer::{self, Token, TokenKind},
    literal,
};
use crate::field::{self, Kind, Subject};

pub(super) fn parse(text: &str) -> Result<Option<Expression>, ParseError> {
    if text.len() > MAX_LENGTH {
        let message = format!("a filter has at most {MAX_LENGTH} bytes, this one has {}", text.len());
        return Err(ParseError::new(text.floor_char_boundary(MAX_LENGTH), message));
    }
    let tokens = lexer::tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { text, tokens: &tokens, next: 0, depth: 0 };
    let root = parser.alternatives()?;
    match parser.peek() {
        None => Ok(Some(root)),
        Some(TokenKind::Close) => Err(parser.error("this parenthesis was never opened")),
        Some(TokenKind::Comma) => {
            Err(parser.error("a comma separates the values of one field; join conditions by `and` or `or`"))
        }
        Some(_) => {
            let message = format!("expected `and`, `or` or the end, found `{}`", parser.found());
            let error = parser.error(message);
            Err(match parser.peek() {
                Some(TokenKind::Word { .. } | TokenKind::Open) => {
                    error.suggesting(format!("and {}", parser.found()))
                }
                _ => error,
            })
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: &'t [Token],
    next: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn alternatives(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.conjunction()?];
        while self.take(&TokenKind::Or) {
            parts.push(self.conjunction()?);
        }
        Ok(joined(parts, Expression::Or))
    }

    fn conjunction(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.unary()?];
        while self.take(&TokenKind::And) {
            parts.push(self.unary()?);
        }
        Ok(joined(parts, Expression::And))
    }

    fn unary(&mut self) -> Result<Expression, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let expression = if self.take(&TokenKind::Not) {
            Expression::Not(Box::new(self.unary()?))
        } else if self.take(&TokenKind::Open) {
            let opened = self.next - 1;
            let inner = self.alternatives()?;
            if !self.take(&TokenKind::Close) {
                return Err(match self.peek() {
                    None => ParseError::new(self.tokens[opened].start, "this parenthesis is never closed"),
                    Some(_) => self.error(format!("expected `and`, `or` or `)`, found `{}`", self.found())),
                });
            }
            inner
        } else {
            Expression::Comparison(self.comparison()?)
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Comparison, ParseError> {
        let subject_at = self.next;
        let subject = self.subject()?;
        let (operator, negated) = self.operator(subject_at)?;
        self.check_operator(subject, operator)?;
        self.next += 1;
        let is_order = !matches!(operator, Operator::Equal | Operator::Like);
        let patterns = self.patterns(subject, operator)?;
        if is_order && !matches!(patterns[..], [Pattern::Range(low, high)] if low == high) {
            self.next = self.next.saturating_sub(1);
            return Err(self.error("an order compares with one number"));
        }
        Ok(Comparison { subject, operator, negated, patterns })
    }

    fn subject(&mut self) -> Result<Subject, ParseError> {
        let Some(TokenKind::Word { text, quoted: false }) = self.peek() else {
            return Err(match self.peek() {
                None => self.error("expected a condition, such as `port=53`, found the end"),
                Some(_) => self.error(format!("expected the name of a field, found `{}`", self.found())),
            });
        };
        let Some(subject) = Subject::by_name(text) else {
            let error = self.error(format!("unknown field `{text}`"));
            let suggestion =
                literal::condition_with(text).or_else(|| field::nearest_name(text).map(Into::into));
            return Err(ParseError { suggestion, ..error });
        };
        if !subject.field().filterable {
            return Err(self.error(format!("`{text}` cannot be used in a filter")));
        }
        self.next += 1;
        Ok(subject)
    }

    /// Reads up to the last token of the operator, and leaves that to be taken once it is found to fit.
    fn operator(&mut self, subject_at: usize) -> Result<(Operator, bool), ParseError> {
        if self.peek() == Some(&TokenKind::Not)
            && self.tokens.get(self.next + 1).map(|token| &token.kind) == Some(&TokenKind::In)
        {
            self.next += 1;
            return Ok((Operator::Equal, true));
        }
        Ok(match self.peek() {
            Some(TokenKind::Equal | TokenKind::In) => (Operator::Equal, false),
            Some(TokenKind::NotEqual) => (Operator::Equal, true),
            Some(TokenKind::Like) => (Operator::Like, false),
            Some(TokenKind::NotLike) => (Operator::Like, true),
            Some(TokenKind::Less) => (Operator::Less, false),
            Some(TokenKind::LessOrEqual) => (Operator::LessOrEqual, false),
            Some(TokenKind::Greater) => (Operator::Greater, false),
            Some(TokenKind::GreaterOrEqual) => (Operator::GreaterOrEqual, false),
            found => {
                let name = self.text_of(&self.tokens[subject_at]);
                let what = if found.is_some() { format!("`{}`", self.found()) } else { "the end".into() };
                let message =
                    format!("expected an operator after `{name}` (=, !=, <, <=, >, >=, in, ~), found {what}");
                let error = self.error(message);
                return Err(match found {
                    Some(TokenKind::Word { .. }) => error.suggesting(format!("{name}={}", self.found())),
                    _ => error,
                });
            }
        })
    }

    fn check_operator(&self, subject: Subject, operator: Operator) -> Result<(), ParseError> {
        let field = subject.field();
        let fits = match operator {
            Operator::Equal => true,
            Operator::Like => matches!(field.kind, Kind::Text | Kind::Flags),
            _ => matches!(
                field.kind,
                Kind::Port | Kind::Integer | Kind::Bytes | Kind::Duration | Kind::Timestamp
            ),
        };
        if fits {
            return Ok(());
        }
        let wants = if operator == Operator::Like { "text" } else { "a number" };
        let message = format!(
            "`{}` needs {wants}, but `{}` is {}",
            self.found(),
            subject.name(),
            field.kind.described()
        );
        let error = self.error(message);
        Err(if operator == Operator::Like { error.suggesting("=") } else { error })
    }

    /// A list, in parentheses or not.
    fn patterns(&mut self, subject: Subject, operator: Operator) -> Result<Vec<Pattern>, ParseError> {
        let in_parentheses = self.take(&TokenKind::Open);
        let mut patterns = Vec::new();
        loop {
            let Some(TokenKind::Word { text, .. }) = self.peek() else {
                let kind = subject.field().kind.described();
                return Err(match self.peek() {
                    None => self.error(format!("expected {kind} for `{}`, found the end", subject.name())),
                    Some(TokenKind::And | TokenKind::Or | TokenKind::Not | TokenKind::In) => {
                        let message = format!("expected {kind}, found the keyword `{}`", self.found());
                        self.error(message).suggesting(format!("\"{}\"", self.found()))
                    }
                    Some(_) => self.error(format!("expected {kind}, found `{}`", self.found())),
                });
            };
            let pattern = literal::pattern(subject.field(), operator, text)
                .map_err(|wrong| ParseError { suggestion: wrong.suggestion, ..self.error(wrong.message) })?;
            self.next += 1;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
            if !self.take(&TokenKind::Comma) {
                break;
            }
        }
        if in_parentheses && !self.take(&TokenKind::Close) {
            let what = if self.peek().is_some() { format!("`{}`", self.found()) } else { "the end".into() };
            return Err(self.error(format!("expected `,` or `)`, found {what}")));
        }
        Ok(patterns)
    }

    fn peek(&self) -> Option<&'t TokenKind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn take(&mut self, kind: &TokenKind) -> bool {
        let found = self.peek() == Some(kind);
        if found {
            self.next += 1;
        }
        found
    }

    /// The next token as it was written; empty at the end.
    fn found(&self) -> &'t str {
        self.tokens.get(self.next).map_or("", |token| self.text_of(token))
    }

    fn text_of(&self, token: &Token) -> &'t str {
        &self.text[token.start..token.end]
    }

    /// An error at the next token.
    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.tokens.get(self.next).map_or(self.text.len(), |token| token.start), message)
    }
}

/// One part stays itself; parts of the same sort are taken in, so that `a and (b and c)` is `a and b and c`.
fn joined(mut parts: Vec<Expression>, make: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    let sort = std::mem::discriminant(&make(Vec::new()));
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        if std::mem::discriminant(&part) == sort
            && let Expression::And(inner) | Expression::Or(inner) = part
        {
            flat.extend(inner);
        } else {
            flat.push(part);
        }
    }
    make(flat)
}
