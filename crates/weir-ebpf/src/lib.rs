//! Kernel programs. Each folder is one object file and one feature: `flow/` counts, `packets/` copies headers,
//! `sockets/` lists sockets, `quality/` reads what TCP sockets know of their way, `drops/` counts dropped packets,
//! `redirect/` sends connections elsewhere.
//!
//! This library holds what the objects share: access to a packet, its headers, the verdict of a filter. But for
//! `redirect/`, a program never changes a packet and never keeps one: every path ends in "continue".

#![no_std]

pub mod filter;
pub mod headers;
pub mod skb;
