//! [`SqlMask`]: literals behind the word `password` in a statement.

use super::{Writer, names::Word};

/// A statement, read byte by byte.
#[derive(Debug)]
pub(super) struct SqlMask {
    state: State,
    word: Word,
    /// Whether the word stands anywhere.
    says_password: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// Behind the word, with what stands before the literal: whether a `=` was there, and whether backslashes count.
    Behind {
        is_assigned: bool,
        has_escapes: bool,
    },
    /// A literal within quotes.
    Quoted {
        has_escapes: bool,
    },
    Escaped,
    /// A quote within a literal: its end, or half of a quote.
    Quote {
        has_escapes: bool,
    },
    /// A value without quotes, as in the text of a connection.
    Bare,
    /// Behind a dollar: a parameter, or a literal between dollars.
    Dollar,
    /// Masked to the end of the statement.
    Rest,
}

impl Default for SqlMask {
    fn default() -> Self {
        Self { state: State::Plain, word: Word::new(), says_password: false }
    }
}

impl SqlMask {
    /// Whether the statement so far says anything of passwords.
    pub(super) const fn says_password(&self) -> bool {
        self.says_password
    }

    pub(super) fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        let mut run = 0;
        let mut is_run_secret = false;
        for (index, byte) in data.iter().enumerate() {
            let is_secret = self.take(*byte);
            if is_secret != is_run_secret {
                writer.write(&data[run..index], is_run_secret);
                (run, is_run_secret) = (index, is_secret);
            }
        }
        writer.write(&data[run..], is_run_secret);
    }

    /// Takes a byte; gives back whether it is a part of a secret.
    fn take(&mut self, byte: u8) -> bool {
        match self.state {
            State::Plain => {
                self.plain(byte);
                false
            }
            State::Behind { is_assigned, has_escapes } => {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'(' => {}
                    b'=' => self.state = State::Behind { is_assigned: true, has_escapes },
                    b'\'' => self.state = State::Quoted { has_escapes },
                    b'$' => self.state = State::Dollar,
                    // A comment may stand here, and nobody looks for its end.
                    b'/' | b'-' => self.state = State::Rest,
                    // A prefix of a literal: E'…', U&'…', N'…'.
                    b'e' | b'E' | b'u' | b'U' | b'n' | b'N' | b'&' if !is_assigned => {
                        let has_escapes = has_escapes || byte.eq_ignore_ascii_case(&b'e');
                        self.word.push(byte);
                        self.state = State::Behind { is_assigned, has_escapes };
                    }
                    _ if is_assigned && byte != 0 && byte != b';' => {
                        self.word.push(byte);
                        self.state = State::Bare;
                        return true;
                    }
                    _ => self.plain(byte),
                }
                false
            }
            State::Quoted { has_escapes } => match byte {
                b'\'' => {
                    self.state = State::Quote { has_escapes };
                    false
                }
                b'\\' if has_escapes => {
                    self.state = State::Escaped;
                    true
                }
                0 => {
                    self.plain(byte);
                    false
                }
                _ => true,
            },
            State::Escaped => {
                self.state = State::Quoted { has_escapes: true };
                true
            }
            State::Quote { has_escapes } => {
                if byte == b'\'' {
                    self.state = State::Quoted { has_escapes };
                    return true;
                }
                if byte.is_ascii_whitespace() {
                    // The literal may go on in the next line.
                    self.state = State::Behind { is_assigned: false, has_escapes };
                } else {
                    self.plain(byte);
                }
                false
            }
            State::Bare if byte == b'\'' && matches!(self.word.as_str(), "e" | "n" | "u&") => {
                // It was the prefix of a literal.
                self.state = State::Quoted { has_escapes: self.word.as_str() == "e" };
                self.word.clear();
                false
            }
            State::Bare if byte == b'&' && self.word.as_str() == "u" => {
                self.word.push(byte);
                true
            }
            State::Bare => {
                let ends = byte.is_ascii_whitespace()
                    || matches!(byte, 0 | b'\'' | b'"' | b';' | b')' | b',' | b'&');
                if ends {
                    self.word.clear();
                    self.plain(byte);
                } else {
                    self.word.push(byte);
                }
                !ends
            }
            State::Dollar => {
                self.state = State::Rest;
                if byte.is_ascii_digit() || byte == 0 {
                    // The number of a parameter.
                    self.plain(byte);
                    return false;
                }
                true
            }
            State::Rest => byte != 0,
        }
    }

    fn plain(&mut self, byte: u8) {
        self.state = State::Plain;
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            self.word.push(byte);
            return;
        }
        let is_word = self.word.as_str().ends_with("password") || self.word.as_str() == "passwd";
        self.word.clear();
        if !is_word {
            return;
        }
        self.says_password = true;
        self.state = State::Behind { is_assigned: false, has_escapes: false };
        if byte == b'=' {
            self.state = State::Behind { is_assigned: true, has_escapes: false };
        } else if byte == b'\'' {
            self.state = State::Quoted { has_escapes: false };
        } else if byte == 0 || byte == b';' || byte == b',' || byte == b')' {
            self.state = State::Plain;
        }
    }
}
