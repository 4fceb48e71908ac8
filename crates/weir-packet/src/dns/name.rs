//! [`Name`]: a domain name, as it is on the wire but without pointers and in lower case.

use core::fmt::{self, Write as _};

/// Most bytes of a name with the lengths of its labels, the last one of which is empty (RFC 1035 2.3.4).
const MOST_BYTES: usize = 255;

/// A domain name in lower case, of which letters alone have one (RFC 4343).
///
/// `Display` writes it without a dot at the end, `.` for the root. What is no printable ASCII, and dots and backslashes
/// within labels, are written as in zone files (RFC 1035 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    /// Labels with their lengths, zeros behind the last one.
    bytes: [u8; MOST_BYTES],
    length: u8,
}

impl Name {
    /// Reads the name at an offset of a message; returns it and where what follows it begins.
    pub(super) fn read(message: &[u8], start: usize) -> Option<(Self, usize)> {
        let mut name = Self { bytes: [0; MOST_BYTES], length: 0 };
        let mut at = start;
        // Where the run of labels begins that is being read: pointers must lead before it, or reading might never end.
        let mut run = start;
        let mut end = None;
        loop {
            match *message.get(at)? {
                0 => return Some((name, end.unwrap_or(at + 1))),
                length @ 1..=63 => {
                    let next = at + 1 + usize::from(length);
                    name.push(message.get(at..next)?)?;
                    at = next;
                }
                upper @ 0xc0.. => {
                    let target = usize::from(upper & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    if target >= run {
                        return None;
                    }
                    (run, at) = (target, target);
                }
                // Other kinds of labels were taken back (RFC 6891 5).
                _ => return None,
            }
        }
    }

    /// Adds a label with its length in front.
    fn push(&mut self, label: &[u8]) -> Option<()> {
        let start = usize::from(self.length);
        let end = start + label.len();
        // One byte is for the empty label at the end.
        if end >= MOST_BYTES {
            return None;
        }
        let place = self.bytes.get_mut(start..end)?;
        place.copy_from_slice(label);
        // Lengths are at most 63, and no letters.
        place.make_ascii_lowercase();
        self.length = u8::try_from(end).ok()?;
        Some(())
    }

    /// Whether it is the root, which has no labels.
    pub const fn is_root(&self) -> bool {
        self.length == 0
    }

    /// The labels, from the left.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..usize::from(self.length)];
        core::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at_checked(usize::from(*length))?;
            rest = behind;
            Some(label)
        })
    }
}

/// Where what follows the name at an offset begins.
pub(super) fn skip(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_char('.');
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            for byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    b'!'..=b'~' => f.write_char(char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
