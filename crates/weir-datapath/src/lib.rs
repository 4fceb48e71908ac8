//! Loads, attaches, reads and detaches Weir's kernel programs, and asks the kernel about interfaces and sockets.
//!
//! The only user-space crate that names aya or needs a privilege. What it hands upwards are the types of
//! `weir-flow`; the layouts of `weir-common` stay inside. It never removes what it did not create.

pub mod attach;
mod bpf;
pub mod cleanup;
mod conditions;
mod cpus;
pub mod dns;
pub mod drops;
pub mod features;
pub mod flow;
mod grace;
pub mod hook;
pub mod instance;
pub mod interface;
mod memlock;
pub mod netns;
pub mod now;
mod object;
pub mod packets;
pub mod programs;
pub mod quality;
pub mod redirect;
pub mod role;
pub mod selfcheck;
pub mod sockets;
pub mod tap;
pub mod witness;
