//! Values that are bound to prepared statements: shown only for statements that were seen to say nothing of passwords.
//!
//! [`Harmless`] keeps the names of those, [`Bind`] finds the values in a message ("Message Formats", Bind).

/// Most statements that are kept. Values of others are masked.
const MOST_STATEMENTS: usize = 256;

/// Longest name of a statement (`NAMEDATALEN`). Values of those with longer ones are masked.
const LONGEST_NAME: usize = 64;

/// Names of statements without passwords.
#[derive(Debug, Default)]
pub(super) struct Harmless {
    names: Vec<Box<[u8]>>,
}

/// A name that is being read, up to its zero.
#[derive(Debug, Default)]
pub(super) struct Name {
    letters: Vec<u8>,
    is_long: bool,
    is_whole: bool,
}

/// The payload of a message that binds values.
#[derive(Debug, Default)]
pub(super) struct Bind {
    portal: Name,
    statement: Name,
    field: Field,
    /// Bytes of a number that is being read, and their count.
    number: u32,
    digits: u8,
    /// Bytes of the present field that are to come.
    left: u64,
    /// Values that are to come.
    values: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Names,
    FormatCount,
    Formats,
    ValueCount,
    Length,
    Value,
    /// How results are wanted.
    Rest,
}

impl Name {
    /// Takes a byte; gives back whether the name is whole.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        if byte == 0 {
            self.is_whole = true;
        } else if !self.is_whole {
            self.is_long |= self.letters.len() >= LONGEST_NAME;
            if !self.is_long {
                self.letters.push(byte);
            }
        }
        self.is_whole
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }
}

impl Harmless {
    pub(super) fn contains(&self, name: &Name) -> bool {
        !name.is_long && self.names.iter().any(|known| **known == *name.letters)
    }

    /// A statement was prepared under this name.
    pub(super) fn prepared(&mut self, name: &Name, is_harmless: bool) {
        if !name.is_whole || name.is_long {
            // Whichever it was, it is not what it was before.
            self.names.clear();
            return;
        }
        match (self.names.iter().position(|known| **known == *name.letters), is_harmless) {
            (Some(place), false) => drop(self.names.swap_remove(place)),
            (None, true) if self.names.len() < MOST_STATEMENTS => {
                self.names.push(name.letters.clone().into_boxed_slice());
            }
            _ => {}
        }
    }

    /// Nobody knows what was prepared meanwhile.
    pub(super) fn forget(&mut self) {
        self.names.clear();
    }
}

impl Bind {
    /// How many of the bytes that come next are all values, or all something else, and whether they are values.
    pub(super) fn next(&mut self, data: &[u8], harmless: &Harmless) -> (usize, bool) {
        match self.field {
            Field::Names => {
                if !self.portal.is_whole() {
                    self.portal.take(data[0]);
                } else if self.statement.take(data[0]) {
                    self.field =
                        if harmless.contains(&self.statement) { Field::Rest } else { Field::FormatCount };
                }
                (1, false)
            }
            Field::FormatCount | Field::ValueCount | Field::Length => {
                self.number = self.number << 8 | u32::from(data[0]);
                self.digits += 1;
                self.number_read();
                (1, false)
            }
            Field::Formats | Field::Value => {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                let is_value = self.field == Field::Value;
                self.left -= length as u64;
                self.skip_empty();
                (length, is_value)
            }
            Field::Rest => (data.len(), false),
        }
    }

    fn number_read(&mut self) {
        let wanted = if self.field == Field::Length { 4 } else { 2 };
        if self.digits < wanted {
            return;
        }
        let number = std::mem::take(&mut self.number);
        self.digits = 0;
        match self.field {
            Field::FormatCount => (self.field, self.left) = (Field::Formats, u64::from(number) * 2),
            Field::ValueCount => {
                self.values = u16::try_from(number).unwrap_or(u16::MAX);
                self.field = if self.values == 0 { Field::Rest } else { Field::Length };
            }
            // The length of NULL is -1.
            _ => {
                (self.field, self.left) =
                    (Field::Value, i32::try_from(number).map_or(0, |_| u64::from(number)));
            }
        }
        self.skip_empty();
    }

    /// Goes past a field that has no bytes left.
    fn skip_empty(&mut self) {
        if self.left > 0 {
            return;
        }
        match self.field {
            Field::Formats => self.field = Field::ValueCount,
            Field::Value => {
                self.values -= 1;
                self.field = if self.values == 0 { Field::Rest } else { Field::Length };
            }
            _ => {}
        }
    }
}
