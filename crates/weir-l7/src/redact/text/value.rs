//! What comes within a secret, or between its name and it: a byte at a time, up to where it ends.

use super::{Before, State, TextMask, Verdict, is_letter};

/// Whether an authority is over with this byte.
pub(super) const fn ends_authority(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\')
}

impl TextMask {
    /// What a byte is, and what it begins.
    pub(super) fn take(&mut self, byte: u8) -> Verdict {
        let is_control = byte < b' ' && byte != b'\t';
        match self.state {
            State::HeaderStart if matches!(byte, b' ' | b'\t') => Verdict::Plain,
            State::HeaderStart | State::Line if matches!(byte, b'\r' | b'\n') => {
                self.is_folded = true;
                self.plain(byte)
            }
            State::HeaderStart => {
                self.state = State::Line;
                Verdict::Secret
            }
            State::Line => Verdict::Secret,
            State::Query => match byte {
                b'&' | b' ' | b'\t' | b'"' | b'<' | b'>' | b'#' => self.plain(byte),
                _ if is_control => self.plain(byte),
                _ => Verdict::Secret,
            },
            State::JsonKeyEnd | State::JsonColon | State::JsonValue | State::JsonString | State::JsonWord => {
                self.json(byte, is_control)
            }
            State::Authority | State::LongAuthority => {
                if byte == b'@' {
                    // There may be another one.
                    self.state = State::Authority;
                    self.held.is_secret = true;
                    return Verdict::Plain;
                }
                if ends_authority(byte) {
                    self.held.is_secret = false;
                    return self.plain(byte);
                }
                if self.state == State::Authority { Verdict::Held } else { Verdict::Secret }
            }
            State::Part | State::PartLine => self.part(byte),
            // A line ended in the gap, or ends here.
            State::Unknown(_) if is_control => {
                self.is_folded &= matches!(byte, b'\r' | b'\n');
                self.plain(byte)
            }
            State::Unknown(left) => {
                self.state = State::Unknown(left - 1);
                if left <= 1 {
                    self.line_start();
                    self.is_folded = false;
                }
                Verdict::Secret
            }
            State::Plain => self.plain(byte),
        }
    }

    /// A byte behind a key of JSON whose value is a secret.
    fn json(&mut self, byte: u8, is_control: bool) -> Verdict {
        match (self.state, byte) {
            (State::JsonKeyEnd, b'"') => {
                self.quotes.are_as_this_one();
                self.state = State::JsonColon;
            }
            (State::JsonColon | State::JsonValue, b' ' | b'\t' | b'\r' | b'\n') => {}
            (State::JsonColon, b':') => self.state = State::JsonValue,
            (State::JsonKeyEnd | State::JsonValue, b'\\') => self.quotes.backslash(),
            (State::JsonValue, b'"') => {
                self.quotes.are_as_this_one();
                self.state = State::JsonString;
            }
            // A space as it is written within a string.
            (State::JsonValue, b'n' | b'r' | b't') if self.quotes.is_behind_backslash() => {
                self.quotes.letter();
            }
            (State::JsonKeyEnd | State::JsonColon, _) | (State::JsonValue, b'{' | b'[' | b',' | b'}') => {
                return self.plain(byte);
            }
            (State::JsonValue, _) => {
                self.state = State::JsonWord;
                return Verdict::Secret;
            }
            (State::JsonString, b'"') => {
                if !self.quotes.ends() {
                    return Verdict::Secret;
                }
                self.begin_word(Before::Other);
                self.state = State::Plain;
            }
            // No string goes on in the next line.
            (State::JsonString, _) if is_control => return self.plain(byte),
            (State::JsonString, b'\\') => {
                self.quotes.backslash();
                // Within another string, those of the quote at its end are no part of it.
                if !self.quotes.are_within() {
                    return Verdict::Secret;
                }
            }
            (State::JsonString, _) => {
                self.quotes.letter();
                return Verdict::Secret;
            }
            // A value without quotes.
            (_, b',' | b'}' | b']' | b' ' | b'\t') => return self.plain(byte),
            (_, b'\\' | b'"') if self.quotes.are_within() => return self.plain(byte),
            _ if is_control => return self.plain(byte),
            _ => return Verdict::Secret,
        }
        Verdict::Plain
    }

    /// A byte of a part of a form that is a secret. Ends of lines are none, and neither is the line that ends the part.
    fn part(&mut self, byte: u8) -> Verdict {
        match byte {
            b'\r' | b'\n' => {
                let is_end = self.state == State::PartLine && self.parts.is_end(&self.word);
                self.held.is_secret = !is_end;
                if is_end {
                    self.not_a_name(Before::Other);
                    return self.plain(byte);
                }
                self.word.clear();
                self.state = if byte == b'\n' { State::PartLine } else { State::Part };
                Verdict::Plain
            }
            _ if self.state == State::PartLine && is_letter(byte) => {
                self.word.push(byte);
                Verdict::Held
            }
            _ => {
                self.held.is_secret = true;
                self.state = State::Part;
                Verdict::Secret
            }
        }
    }
}
