//! Kernel programs. Each folder is one object file and one feature: `flow/` counts, `packets/` copies headers,
//! `sockets/` lists sockets.
//!
//! This library holds what the objects share: access to a packet. A program never changes a packet and never keeps
//! one: every path ends in "continue".

#![no_std]

pub mod skb;
