//! The compiled kernel objects, embedded in the binary.

use aya::include_bytes_aligned;

/// The counting programs (`weir-ebpf/src/flow`).
pub(crate) static FLOW: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flow"));

/// The walk over open sockets (`weir-ebpf/src/sockets`).
pub(crate) static SOCKETS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets"));
