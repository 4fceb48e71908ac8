//! [`Window`]: the first bytes of a frame in a buffer of fixed size.
//!
//! Every read is one comparison and one mask, which is what the kernel's verifier can follow: before 6.12 it forgets
//! the bounds of a value that was spilled to the stack, so the mask comes last, and the slack behind the window makes
//! any masked offset a good one. Bytes beyond the stated length are never returned, whatever they hold.

/// Most bytes of a frame that are looked at. A power of two.
pub const WINDOW: usize = 128;

/// Bytes behind the window that exist for the verifier's sake alone; the longest single read.
pub const SLACK: usize = 64;

/// Size of the buffer that a [`Window`] borrows, in bytes.
pub const BUFFER: usize = WINDOW + SLACK;

/// The first bytes of a frame, and how many of them are real.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    buffer: &'a [u8; BUFFER],
    length: usize,
}

impl<'a> Window<'a> {
    /// The first `length` bytes of `buffer`, at most [`WINDOW`].
    #[inline(always)]
    pub fn new(buffer: &'a [u8; BUFFER], length: usize) -> Self {
        Self { buffer, length: length.min(WINDOW) }
    }

    /// Bytes that can be read, at most [`WINDOW`].
    #[inline(always)]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The same window, ending at `end` if it does not end before.
    #[inline(always)]
    #[must_use]
    pub fn shortened(self, end: usize) -> Self {
        Self { buffer: self.buffer, length: self.length.min(end) }
    }

    /// `N` bytes from `offset` on, unless one of them lies beyond the end.
    #[inline(always)]
    pub fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= SLACK, "reads longer than the slack could leave the buffer") };
        if offset >= WINDOW || offset + N > self.length {
            return None;
        }
        let start = offset & (WINDOW - 1);
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[start..start + N]);
        Some(bytes)
    }
}
