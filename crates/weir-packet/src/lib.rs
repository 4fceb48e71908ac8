//! Packet headers: what the bytes of a frame say, and what a packet counts for.
//!
//! The same code runs in the kernel programs, in tests on the host, in `weir replay` and in the fuzzer. It does no
//! I/O, allocates nothing, never panics and forbids `unsafe`. Numbers come out in host byte order. What it cannot
//! read it names ([`Parsed`]); it never guesses.

#![no_std]
#![forbid(unsafe_code)]

mod tuple;

pub use tuple::{Tuple, protocol};
