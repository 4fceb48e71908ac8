//! [`Parts`]: forms in parts (RFC 7578): which part is a secret by its name, and where it ends.

use super::names::{MOST_NAME, Word};

/// Where in a form in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not in a head, or in one that says nothing of a secret.
    None,
    /// In the line that names the part.
    Head,
    /// In a head, and what follows it is a secret.
    Secret,
}

/// What is known of a form.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) form: Form,
    /// The last line that was one word and may be what separates parts: it is said in front of each of them. A part ends with nothing
    /// else, since what is in it may look like anything.
    boundary: Word,
}

impl Parts {
    pub(super) const fn new() -> Self {
        Self { form: Form::None, boundary: Word::new() }
    }

    /// A line that is one word.
    pub(super) fn line(&mut self, word: &Word) {
        if Self::may_be_boundary(word.as_bytes().iter()) {
            self.boundary = word.clone();
        }
    }

    /// Whether a word may separate parts. Of a long one only the end is known.
    pub(super) fn may_be_boundary<'w>(word: impl Iterator<Item = &'w u8> + Clone) -> bool {
        word.clone().take(2).filter(|letter| **letter == b'-').count() == 2 || word.count() >= MOST_NAME
    }

    /// Whether there was a line that may separate parts.
    pub(super) fn has_begun(&self) -> bool {
        !self.boundary.is_empty()
    }

    /// The name of the part is known.
    pub(super) const fn named(&mut self, is_secret: bool) {
        self.form = if is_secret { Form::Secret } else { Form::None };
    }

    /// A line is over. Gives back whether a secret begins behind it.
    pub(super) fn line_is_over(&mut self, is_empty: bool) -> bool {
        let begins = self.form == Form::Secret && is_empty;
        if begins || self.form == Form::Head {
            self.form = Form::None;
        }
        begins
    }

    /// Whether this line ends a part. The one behind the last part has two dashes more.
    pub(super) fn is_end(&self, line: &Word) -> bool {
        let (boundary, line) = (self.boundary.as_str(), line.as_str());
        let is_last = |short: &str| {
            short == boundary
                || short.len() + 2 == MOST_NAME && boundary.len() == MOST_NAME && boundary.ends_with(short)
        };
        self.has_begun() && (line == boundary || line.strip_suffix("--").is_some_and(is_last))
    }
}
