//! [`Command`]: what a client wants of Redis, as it is collected, and what is to be known of single commands.

use crate::call::{limit, text};

/// Most bytes of a word that decides something.
const MOST_NAME: usize = 64;

/// Commands whose next word is a part of the name.
const CONTAINERS: &[&str] = &[
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE",
    "OBJECT", "PUBSUB", "SCRIPT", "SLOWLOG", "XGROUP", "XINFO",
];

/// Words of a command or of the beginning of a reply, as far as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    bytes: Vec<u8>,
    /// Where each word ends.
    ends: Vec<usize>,
    /// All words, also those that are not kept.
    pub(super) count: u64,
    most: usize,
}

impl Words {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn begin(&mut self) {
        self.count += 1;
        if self.bytes.len() < self.most && self.ends.len() < 256 {
            self.ends.push(self.bytes.len());
        }
    }

    /// More of the word that began last.
    pub(super) fn add(&mut self, piece: &[u8]) {
        // A word that is not kept has no end either.
        if self.ends.len() as u64 != self.count {
            return;
        }
        let room = self.most.saturating_sub(self.bytes.len()).min(piece.len());
        self.bytes.extend_from_slice(&piece[..room]);
        if let Some(end) = self.ends.last_mut() {
            *end = self.bytes.len();
        }
    }

    /// Takes the words of a line apart.
    pub(super) fn split_line(&self) -> Self {
        let mut words = Self::new(self.most);
        for word in self.bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            words.begin();
            words.add(word);
        }
        words
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.bytes.get(start..*self.ends.get(index)?)
    }

    /// The word in upper case.
    pub(super) fn name(&self, index: usize) -> String {
        text(self.get(index).unwrap_or_default(), MOST_NAME).to_ascii_uppercase()
    }

    /// The words with spaces between them; those with other than letters as the Redis client shows them.
    pub(super) fn shown(&self) -> String {
        let mut shown = String::new();
        for index in 0..self.ends.len() {
            if index > 0 {
                shown.push(' ');
            }
            let word = self.get(index).unwrap_or_default();
            match std::str::from_utf8(word) {
                Ok(plain)
                    if !plain.is_empty()
                        && !plain
                            .contains(|letter: char| letter.is_control() || " \"'\\".contains(letter)) =>
                {
                    shown.push_str(plain);
                }
                _ => {
                    shown.push('"');
                    shown.extend(word.escape_ascii().map(char::from));
                    shown.push('"');
                }
            }
        }
        shown
    }
}

/// The name of a command, with its subcommand.
pub(super) fn name(words: &Words) -> String {
    let mut name = words.name(0);
    if CONTAINERS.contains(&name.as_str()) && words.count > 1 {
        name.push(' ');
        name.push_str(&words.name(1));
    }
    name
}

/// Which kind of channels a command is about, and whether it takes them on.
pub(super) fn subscription(command: &str) -> Option<(usize, bool)> {
    Some(match command {
        "SUBSCRIBE" => (0, true),
        "PSUBSCRIBE" => (1, true),
        "SSUBSCRIBE" => (2, true),
        "UNSUBSCRIBE" => (0, false),
        "PUNSUBSCRIBE" => (1, false),
        "SUNSUBSCRIBE" => (2, false),
        _ => return None,
    })
}

/// New words for a command.
pub(super) fn words() -> Words {
    Words::new(limit::STATEMENT)
}
