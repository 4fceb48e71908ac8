//! [`RedisMask`]: passwords in commands of Redis, and in what it tells of its configuration.

use super::{Writer, names::Word};
use crate::{
    Part,
    redis::resp::{INLINE, Reader, Step},
    sides::{self, Direction as _},
};

/// Words behind which a password stands, and how many words it is.
const BEFORE_PASSWORDS: &[(&str, u8)] = &[
    ("requirepass", 1),
    ("masterauth", 1),
    ("auth-pass", 1),
    ("tls-key-file-pass", 1),
    ("tls-client-key-file-pass", 1),
];

/// Commands of which such words are options.
const WITH_OPTIONS: &[&str] = &["config", "sentinel", "hello", "migrate"];

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct RedisMask {
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    part: Part,
    reader: Reader,
    /// Whether a lost reader may be found again, because the other side spoke since.
    is_turn: bool,
    command: Word,
    /// The word that is being read, or was read last.
    word: Word,
    /// Words that were begun.
    words: u64,
    /// How many of the words to come are secret.
    secrets: u64,
    is_inline: bool,
}

impl RedisMask {
    pub(super) fn new(is_joined: bool) -> Self {
        let side = |part| Side {
            part,
            reader: sides::reader(part, is_joined),
            is_turn: true,
            command: Word::new(),
            word: Word::new(),
            words: 0,
            secrets: 0,
            is_inline: false,
        };
        Self { sides: [Part::Client, Part::Server].map(side) }
    }

    pub(super) fn bytes(&mut self, part: Part, data: &[u8], writer: &mut Writer<'_>) {
        self.sides[1 - part as usize].is_turn = true;
        self.sides[part as usize].bytes(data, writer);
    }

    pub(super) fn gap(&mut self, part: Part, length: u64) {
        self.sides[1 - part as usize].is_turn = true;
        let side = &mut self.sides[part as usize];
        if !side.reader.gap(length) {
            side.is_turn = false;
        }
        // The word that was there may have been one behind which a password stands.
        side.secrets = u64::MAX;
    }
}

impl Side {
    fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        if self.reader.is_lost() && self.is_turn {
            self.reader.find_again();
        }
        self.is_turn = false;
        let mut rest = data;
        while !rest.is_empty() {
            let before = rest;
            let step = self.reader.step(&mut rest);
            let used = &before[..before.len() - rest.len()];
            match step {
                Some(Step::Began) => {
                    self.command.clear();
                    self.word.clear();
                    (self.words, self.secrets, self.is_inline) = (0, 0, false);
                    writer.pass(used);
                }
                Some(Step::Scalar(of)) => {
                    self.is_inline = of == INLINE;
                    self.begin_word();
                    writer.pass(used);
                }
                Some(Step::Text(_)) if self.is_inline => self.inline(used, writer),
                Some(Step::Text(_)) => {
                    writer.write(used, self.secrets > 0);
                    if self.secrets == 0 {
                        self.add(used);
                    }
                }
                // Until it is known again what is what.
                Some(Step::Skipped) => writer.mask(used.len()),
                // Of what broke the rules, types and lengths alone were read.
                Some(Step::List(..) | Step::Ended | Step::Broken) | None => writer.pass(used),
            }
        }
    }

    fn add(&mut self, piece: &[u8]) {
        for letter in piece.iter().take(super::names::MOST_NAME + 1) {
            if self.words == 1 {
                self.command.push(*letter);
            }
            self.word.push(*letter);
        }
    }

    /// A word begins: what stands before it decides whether it is a secret.
    fn begin_word(&mut self) {
        self.secrets = self.secrets.saturating_sub(1);
        if self.secrets == 0 {
            self.secrets = self.secrets_to_come();
        }
        self.words += 1;
        self.word.clear();
    }

    fn secrets_to_come(&self) -> u64 {
        let word = self.word.as_str();
        let by_option = BEFORE_PASSWORDS.iter().find(|(option, _)| *option == word);
        if self.part == Part::Server {
            // An answer to CONFIG GET.
            return by_option.map_or(0, |(_, words)| u64::from(*words));
        }
        match (self.command.as_str(), self.words) {
            ("auth", 1..) | ("acl", 3..) => u64::MAX,
            ("hello", 2..) | ("migrate", 6..)
                if word == "auth2" || word == "auth" && self.command.as_str() == "hello" =>
            {
                2
            }
            ("migrate", 6..) if word == "auth" => 1,
            (command, 2..) if WITH_OPTIONS.contains(&command) => {
                by_option.map_or(0, |(_, words)| u64::from(*words))
            }
            _ => 0,
        }
    }

    /// A piece of a line: behind the name of a command that may have secrets, all is one.
    fn inline(&mut self, piece: &[u8], writer: &mut Writer<'_>) {
        let mut at = 0;
        while at < piece.len() && self.secrets == 0 {
            let letter = piece[at];
            at += 1;
            if self.words > 1 {
                at = piece.len();
            } else if matches!(letter, b'"' | b'\'') {
                // Words may stand within quotes.
            } else if !letter.is_ascii_whitespace() {
                self.command.push(letter);
            } else if !self.command.is_empty() {
                self.words = 2;
                let command = self.command.as_str();
                if command == "auth" || command == "acl" || WITH_OPTIONS.contains(&command) {
                    self.secrets = u64::MAX;
                }
            }
        }
        writer.pass(&piece[..at]);
        writer.mask(piece.len() - at);
    }
}
