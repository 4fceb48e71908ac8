//! What tests of the kernel side stand on: network namespaces, wires between them, and traffic with exact counts.
//!
//! Everything is unnamed and held by descriptors, so tests run side by side and leave nothing behind, however they
//! end. Where something is missing the functions panic: a test has no better answer. Nothing here sends outside of
//! the namespaces it made.

pub mod agent;
pub mod blast;
pub mod capturing;
pub mod certificates;
pub mod cgroup;
pub mod checks;
pub mod collector;
pub mod control_plane;
pub mod counting;
pub mod crowd;
pub mod delivery;
pub mod frames;
pub mod http;
pub mod lines;
pub mod machine;
pub mod memory;
mod namespace;
pub mod neighbourhood;
pub mod observing;
pub mod peers;
mod permission;
pub mod postgres;
pub mod redirecting;
pub mod relay;
pub mod reserved_port;
pub mod small_disk;
pub mod sock_ops;
pub mod speaker;
pub mod tap_command;
pub mod tapping;
pub mod tcp;
pub mod tcpdump;
pub mod tcx;
pub mod traffic;
pub mod tun;
mod veth;

pub use namespace::Namespace;
pub use permission::{cannot_run, require_root, require_tool};
pub use veth::{Neighbours, Veth, VethEnd};
