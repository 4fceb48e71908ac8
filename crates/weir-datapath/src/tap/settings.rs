//! How a tap is opened, and what came of it.

use std::fmt;

/// Which hooks are used. Earlier is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Two tracepoints of the socket layer (since 6.3).
    Sockets,
    /// The ends of the kernel's functions that send and receive.
    Functions,
    /// The same by probes, for kernels that allow no other way.
    Probes,
    /// System calls.
    Syscalls,
}

impl Tier {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::Sockets, Self::Functions, Self::Probes, Self::Syscalls];

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Sockets => 'S',
            Self::Functions => 'F',
            Self::Probes => 'K',
            Self::Syscalls => 'T',
        }
    }

    /// The tier with that letter, in either case.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| letter.eq_ignore_ascii_case(tier.letter().encode_utf8(&mut [0; 4])))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks = match self {
            Self::Sockets => "tracepoints of sockets",
            Self::Functions => "ends of functions",
            Self::Probes => "probes of functions",
            Self::Syscalls => "system calls",
        };
        write!(f, "{} ({hooks})", self.letter())
    }
}

/// How to tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which hooks; `None` takes the best that works.
    pub tier: Option<Tier>,
    /// Bytes of the ring buffer; rounded up to a power of two.
    pub ring: u32,
    /// Sockets that are known at once, in tiers that need a table of them.
    pub connections: u32,
    /// Whether Unix sockets are tapped.
    pub unix: bool,
    /// Whether the messages of `sendmmsg` and `recvmmsg` are counted, so that they can be told apart. Costs every system
    /// call on the machine some 35 ns. Without it, a call with more than one message is a gap.
    pub count_messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tier: None, ring: 16 << 20, connections: 65_536, unix: false, count_messages: false }
    }
}

/// What a tap uses, and why nothing better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The hooks.
    pub tier: Tier,
    /// Better tiers that were tried, and why they do not work here.
    pub tried: Vec<(Tier, String)>,
    /// What else does not work here, and what is missing for it.
    pub without: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_known_by_its_letter_in_either_case() {
        for tier in Tier::ALL {
            let letter = tier.letter().to_string();
            assert_eq!(Tier::from_letter(&letter), Some(tier));
            assert_eq!(Tier::from_letter(&letter.to_lowercase()), Some(tier));
        }
        assert_eq!(Tier::from_letter("x"), None);
        assert_eq!(Tier::from_letter(""), None);
    }
}
