//! [`Message`]: what is kept of a message while it is read, and what it says.

use weir_flow::Monotonic;

use crate::{Moment, Part, call::limit};

/// Most bytes that are kept of what is behind the length: a statement, and the names in front of it.
const MOST_KEPT: usize = limit::STATEMENT + 512;

/// Codes in the first message of a client.
pub(super) mod code {
    /// "Version 1234.5678".
    pub(crate) const CANCEL: u32 = 0x04d2_162e;
    /// "Version 1234.5679".
    pub(crate) const TLS: u32 = 0x04d2_162f;
    /// "Version 1234.5680".
    pub(crate) const GSS: u32 = 0x04d2_1630;
    /// Upper half of every version that is known.
    pub(crate) const MAJOR_VERSION: u32 = 3;
}

/// A message that is being read.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) at: Moment,
    /// When its last byte came.
    pub(super) end: Monotonic,
    pub(super) letter: u8,
    pub(super) bytes: u64,
    pub(super) gap_bytes: u64,
    kept: Vec<u8>,
    /// What follows is not kept: there was a gap, or it is of no interest.
    is_kept: bool,
}

impl Message {
    pub(super) fn new(at: Moment) -> Self {
        Self { at, end: at.time, letter: 0, bytes: 0, gap_bytes: 0, kept: Vec::new(), is_kept: true }
    }

    /// Rows and copied data are counted, and no more. Of a client, `D` is another message.
    pub(super) fn header(&mut self, part: Part, letter: u8) {
        self.letter = letter;
        self.is_kept = match letter {
            b'd' | b'T' | b'p' => false,
            b'D' => part == Part::Client,
            _ => true,
        };
    }

    pub(super) fn payload(&mut self, piece: &[u8]) {
        if self.is_kept {
            let room = MOST_KEPT.saturating_sub(self.kept.len()).min(piece.len());
            self.kept.extend_from_slice(&piece[..room]);
        }
    }

    pub(super) fn gap(&mut self, length: u64) {
        self.bytes = self.bytes.saturating_add(length);
        self.gap_bytes = self.gap_bytes.saturating_add(length);
        self.is_kept = false;
    }

    /// Bytes behind the length.
    pub(super) fn body_bytes(&self) -> u64 {
        self.bytes.saturating_sub(5)
    }

    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Texts with a zero behind each, as far as they are whole.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        texts(&self.kept)
    }

    /// The text at the beginning, even if its end was not kept.
    pub(super) fn text(&self) -> &[u8] {
        self.kept.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// A name, and what is behind it, even if its end was not kept. `None` where the name is not whole.
    pub(super) fn name_and_text(&self) -> Option<(&[u8], &[u8])> {
        let name = self.texts().next()?;
        let rest = &self.kept[name.len() + 1..];
        Some((name, rest.split(|byte| *byte == 0).next().unwrap_or_default()))
    }
}

fn texts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let text = &rest[..end];
        rest = &rest[end + 1..];
        Some(text)
    })
}

/// The code at the beginning of a client's first message.
pub(super) fn startup_code(kept: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*kept.first_chunk()?))
}

/// What a client says of itself at the beginning: the value of a parameter.
pub(super) fn parameter<'k>(kept: &'k [u8], wanted: &[u8]) -> Option<&'k [u8]> {
    let mut texts = texts(kept.get(4..)?);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        if name == wanted {
            return Some(value);
        }
    }
    None
}

/// A field of an error: `C` is its code, `M` its text.
pub(super) fn error_field(kept: &[u8], wanted: u8) -> Option<&[u8]> {
    texts(kept).find_map(|field| field.strip_prefix(&[wanted]))
}

/// The words of a command tag that name the command, and the number of rows at its end: `INSERT 0 5` (an object's number
/// stands between them), `CREATE TABLE`.
pub(super) fn tag(tag: &[u8]) -> (String, Option<u64>) {
    let tag = String::from_utf8_lossy(&tag[..tag.len().min(limit::NAME)]);
    let mut words: Vec<&str> = tag.split(' ').collect();
    let rows = words.last().and_then(|word| word.parse().ok());
    words.retain(|word| !word.starts_with(|letter: char| letter.is_ascii_digit()));
    (words.join(" "), rows)
}

/// The first word of a statement in upper case, behind spaces and comments.
pub(super) fn first_word(statement: &str) -> String {
    let mut rest = statement;
    loop {
        rest =
            rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '(' || letter == ';');
        let behind = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n')
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/")
        } else {
            break;
        };
        let Some((_, behind)) = behind else { return String::new() };
        rest = behind;
    }
    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    rest[..end.min(32)].to_ascii_uppercase()
}
