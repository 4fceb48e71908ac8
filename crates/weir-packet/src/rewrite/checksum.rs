//! Sums in ones' complement (RFC 1071), of words in the order of memory, as the kernel has them.

#![expect(clippy::cast_possible_truncation, reason = "halves are wanted, or sums are folded")]

/// What a checksum changes by, or the sum of what it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Adds four bytes, as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, bytes: u32) -> Self {
        // Carries collect in the upper half; it takes 2^32 additions to lose one.
        Self(self.0 + bytes as u64)
    }

    /// Takes `old` away and adds `new`, both as they lie in memory (RFC 1624 3: `~m + m'`).
    #[inline(always)]
    #[must_use]
    pub const fn replace(self, old: u32, new: u32) -> Self {
        self.add(!old).add(new)
    }

    /// The same for two bytes.
    #[inline(always)]
    #[must_use]
    pub const fn replace_short(self, old: u16, new: u16) -> Self {
        self.add((!old) as u32).add(new as u32)
    }

    /// The same for one word of an address, which is a number.
    #[inline(always)]
    #[must_use]
    pub const fn replace_word(self, old: u64, new: u64) -> Self {
        let (old, new) = (old.to_be(), new.to_be());
        self.replace(old as u32, new as u32).replace((old >> 32) as u32, (new >> 32) as u32)
    }

    /// Both together.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// In 32 bits, as the kernel's helpers take it.
    #[inline(always)]
    pub const fn partial(self) -> u32 {
        let folded = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        (folded & 0xffff_ffff) as u32 + (folded >> 32) as u32
    }

    /// In 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let partial = self.partial() as u64;
        let once = (partial & 0xffff) + (partial >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// A checksum field, as it lies in memory, after what it covers changed by this (RFC 1624 3, equation 3).
    #[inline(always)]
    pub const fn applied_to(self, check: u16) -> u16 {
        !self.add((!check) as u32).folded()
    }
}
