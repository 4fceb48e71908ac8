//! The contract between the kernel programs and user space: map keys, map values and ring-buffer records.
//!
//! Everything here is integers and byte arrays with a fixed layout, checked at compile time. Both sides read the
//! same definitions, so a change here changes both; bump [`LAYOUT_VERSION`] with it. No behaviour lives here:
//! parsing and arithmetic are in `weir-packet`, meaning is in `weir-flow`.

#![no_std]
#![forbid(unsafe_code)]

pub mod dns;
pub mod drops;
pub mod flow;
pub mod packets;
pub mod quality;
pub mod redirect;
pub mod sockets;
pub mod tap;

/// Version of every layout in this crate. Part of the names of pins, so that two versions never share a map.
pub const LAYOUT_VERSION: u32 = 1;
