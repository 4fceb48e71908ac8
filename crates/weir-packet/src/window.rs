//! [`Window`]: the first bytes of a frame in a buffer of fixed size, read in a way that the kernel's verifier follows.
//!
//! - A read is one comparison and one mask. The mask comes last, because before 6.12 the verifier forgets the bounds
//!   of a value that was spilled to the stack; the slack behind the window makes any masked offset a good one.
//! - The verifier walks every path with the values it knows on it, and paths multiply: tags, extension headers,
//!   protocols. [`Window::forget`] sends a value through memory that it does not track, after which paths that
//!   differed in that value alone are one (434,000 steps without, a few thousand with it).
//!
//! Bytes beyond the stated length are never returned, whatever they hold.

use core::hint::black_box;

/// Most bytes of a frame that are looked at. A power of two.
pub const WINDOW: usize = 128;

/// Bytes behind the window that exist for the verifier's sake alone; the longest single read.
pub const SLACK: usize = 64;

/// Room for the first bytes of a frame. In the kernel a part of a map's value, not of the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// The bytes go at the start; the last [`SLACK`] are never looked at.
    pub bytes: [u8; WINDOW + SLACK],
    cell: u64,
}

impl Buffer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: [0; WINDOW + SLACK], cell: 0 }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The first bytes of a frame, and how many of them are real.
#[derive(Debug)]
pub struct Window<'a> {
    buffer: &'a mut Buffer,
    length: usize,
}

impl<'a> Window<'a> {
    /// The first `length` bytes of `buffer`, at most [`WINDOW`].
    #[inline(always)]
    pub fn new(buffer: &'a mut Buffer, length: usize) -> Self {
        let mut window = Self { buffer, length: 0 };
        window.length = window.forget_offset(length.min(WINDOW));
        window
    }

    /// Bytes that can be read, at most [`WINDOW`].
    #[inline(always)]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Ends the window at `end` if it does not end before.
    #[inline(always)]
    pub(crate) fn shorten(&mut self, end: usize) {
        self.length = self.forget_offset(self.length.min(end));
    }

    /// `N` bytes from `offset` on, unless one of them lies beyond the end. `offset` is far from wrapping.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= SLACK, "a longer read could leave the buffer") };
        if offset + N > self.length {
            return None;
        }
        let start = offset & (WINDOW - 1);
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer.bytes[start..start + N]);
        Some(bytes)
    }

    /// Returns `value`, of which neither the compiler nor the verifier then knows anything.
    #[inline(always)]
    pub(crate) fn forget(&mut self, value: u64) -> u64 {
        self.buffer.cell = value;
        black_box(&mut *self.buffer).cell
    }

    /// [`Window::forget`] for offsets and lengths.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it was a usize before")]
    pub(crate) fn forget_offset(&mut self, offset: usize) -> usize {
        self.forget(offset as u64) as usize
    }
}
