//! Packet headers: what the bytes of a frame say, and what a packet counts for.
//!
//! The same code runs in the kernel programs, in tests on the host, in `weir replay` and in the fuzzer. It does no
//! I/O, allocates nothing, never panics and forbids `unsafe`. Numbers come out in host byte order. What it cannot
//! read it names ([`Parsed`]); it never guesses.
//!
//! [`dns`] reads what is in DNS messages, which programs of the kernel do not.
//!
//! [`plain`] reads what nearly all traffic is, in a few nanoseconds; [`parse()`] reads the rest and agrees with it.

#![no_std]
#![forbid(unsafe_code)]
#![expect(clippy::inline_always, reason = "calls cost in the kernel, where arguments are five registers")]

#[cfg(test)]
extern crate std;

mod accounting;
pub mod dns;
mod icmp;
mod parse;
pub mod plain;
pub mod rewrite;
mod tuple;
mod window;

pub use accounting::{VLAN_TAG_BYTES, last_frame_bytes, segments, wire_bytes};
pub use icmp::answering_type;
pub use parse::{Headers, Link, Parsed, ethertype, parse, parse_bytes};
pub use tuple::{Details, Tuple, ipv4_words, ipv6_words, protocol};
pub use window::{Buffer, SLACK, WINDOW, Window};
