//! [`Chunk`]: a piece of what one end of a connection said, or the statement that a piece is not there.
//!
//! Positions count the bytes of one direction from any beginning. For datagrams they count bytes as well, and each
//! chunk is one datagram.

use weir_flow::Monotonic;

/// Bytes, or a gap, at a position of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Bytes as they were on the stream.
    Bytes {
        /// Where the first of them is.
        position: u64,
        /// When they were said.
        time: Monotonic,
        /// The bytes.
        data: &'a [u8],
    },
    /// Bytes that were on the stream, and were not captured.
    Gap {
        /// Where the first of them is.
        position: u64,
        /// When they were said, or when it was clear that they will not come.
        time: Monotonic,
        /// How many they are.
        length: u64,
        /// Why they are not there.
        reason: GapReason,
    },
}

impl<'a> Chunk<'a> {
    /// Where it begins.
    pub const fn position(&self) -> u64 {
        match self {
            Self::Bytes { position, .. } | Self::Gap { position, .. } => *position,
        }
    }

    /// When it was said.
    pub const fn time(&self) -> Monotonic {
        match self {
            Self::Bytes { time, .. } | Self::Gap { time, .. } => *time,
        }
    }

    /// How many bytes of the stream it stands for; none beyond the last position that there is.
    pub fn length(&self) -> u64 {
        let length = match self {
            Self::Bytes { data, .. } => data.len() as u64,
            Self::Gap { length, .. } => *length,
        };
        length.min(u64::MAX - self.position())
    }

    /// Where what follows it begins.
    pub fn end(&self) -> u64 {
        self.position() + self.length()
    }

    /// Cuts it at a position; `None` for a side on which nothing is.
    #[must_use]
    pub fn split(self, at: u64) -> (Option<Self>, Option<Self>) {
        if self.length() == 0 {
            return (None, None);
        }
        if at <= self.position() {
            return (None, Some(self));
        }
        if at >= self.end() {
            return (Some(self), None);
        }
        let before = at - self.position();
        match self {
            Self::Bytes { position, time, data } => {
                let (left, right) = data.split_at(usize::try_from(before).unwrap_or(data.len()));
                let left = Self::Bytes { position, time, data: left };
                (Some(left), Some(Self::Bytes { position: at, time, data: right }))
            }
            Self::Gap { position, time, length, reason } => {
                let left = Self::Gap { position, time, length: before, reason };
                (Some(left), Some(Self::Gap { position: at, time, length: length - before, reason }))
            }
        }
    }

    /// The same so many bytes further.
    #[must_use]
    pub(crate) const fn moved(mut self, bytes: u64) -> Self {
        let (Self::Bytes { position, .. } | Self::Gap { position, .. }) = &mut self;
        *position = position.saturating_add(bytes);
        self
    }

    /// The bytes, if these are bytes.
    pub const fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes { data, .. } => Some(data),
            Self::Gap { .. } => None,
        }
    }
}

/// Why bytes were not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapReason {
    /// Beyond the limit of bytes per call, or per connection.
    Limit,
    /// Beyond the budget of bytes per second.
    Budget,
    /// The rule does not ask for it.
    Payload,
    /// There was no room between kernel and reader.
    Lost,
    /// The program's memory could not be read.
    Fault,
    /// The call had more pieces than are read.
    Segments,
    /// Several messages by one call, of which it is not known which one this was.
    Messages,
    /// Sent from a file, without passing the program's memory.
    Sendfile,
    /// Moved through a pipe, without passing the program's memory.
    Splice,
    /// Sent or received by way of `io_uring`.
    IoUring,
    /// By a program of 32 bits.
    Compat,
    /// The program's memory may have changed before it was read.
    ZeroCopy,
    /// Consumed by the program without being copied to it.
    Truncated,
    /// By the kernel itself.
    Kernel,
    /// By a system call that is not known.
    Other,
    /// Announced by what came behind it, and it never came itself.
    Missing,
    /// The kernel's own count at the end says that there was more than any hook saw.
    Unseen,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::Limit,
        Self::Budget,
        Self::Payload,
        Self::Lost,
        Self::Fault,
        Self::Segments,
        Self::Messages,
        Self::Sendfile,
        Self::Splice,
        Self::IoUring,
        Self::Compat,
        Self::ZeroCopy,
        Self::Truncated,
        Self::Kernel,
        Self::Other,
        Self::Missing,
        Self::Unseen,
    ];

    /// Every name, in the order of [`GapReason::ALL`].
    pub const NAMES: [&'static str; 17] = [
        "limit",
        "budget",
        "payload",
        "lost",
        "fault",
        "segments",
        "messages",
        "sendfile",
        "splice",
        "io-uring",
        "compat",
        "zero-copy",
        "truncated",
        "kernel",
        "other",
        "missing",
        "unseen",
    ];

    /// Its name, such as `io-uring`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_its_name() {
        for (place, reason) in GapReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert_eq!(reason.name(), GapReason::NAMES[place]);
        }
    }

    #[test]
    fn a_chunk_is_cut_into_what_is_before_a_position_and_what_is_behind() {
        let time = Monotonic(1);
        let chunk = Chunk::Bytes { position: 10, time, data: b"abcd" };
        assert_eq!(chunk.split(9), (None, Some(chunk)));
        assert_eq!(chunk.split(10), (None, Some(chunk)));
        assert_eq!(chunk.split(14), (Some(chunk), None));
        let (left, right) = chunk.split(11);
        assert_eq!(left, Some(Chunk::Bytes { position: 10, time, data: b"a" }));
        assert_eq!(right, Some(Chunk::Bytes { position: 11, time, data: b"bcd" }));
        let gap = Chunk::Gap { position: u64::MAX - 2, time, length: 9, reason: GapReason::Lost };
        assert_eq!((gap.length(), gap.end()), (2, u64::MAX));
        assert_eq!(gap.split(u64::MAX - 1).0.map(|left| left.length()), Some(1));
        assert_eq!(Chunk::Bytes { position: 3, time, data: b"" }.split(3), (None, None));
    }
}
