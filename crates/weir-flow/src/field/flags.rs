//! TCP flags as text.

use std::fmt;

/// Names of the nine flags, lowest bit first (RFC 9293 3.1; the ninth, once NS, is AE in Accurate ECN).
const FLAG_NAMES: [&str; 9] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];

/// A set of TCP flags. It reads and writes as `SYN|ACK`, the empty set as `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    /// Names of the flags, lowest bit first.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.into_iter()
    }

    /// Reads `SYN|ACK`, in any order and case; gives back the part that is not a flag.
    pub(crate) fn parse(text: &str) -> Result<Self, &str> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(0));
        }
        let mut flags = 0;
        for part in text.split('|') {
            let bit = FLAG_NAMES.iter().position(|name| name.eq_ignore_ascii_case(part)).ok_or(part)?;
            flags |= 1 << bit;
        }
        Ok(Self(flags))
    }

    /// Whether all of `wanted` are set.
    pub(crate) const fn has_all(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in FLAG_NAMES.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}
