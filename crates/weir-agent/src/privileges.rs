//! Giving up what a process was allowed to do, once it has everything that it needs.
//!
//! A thread passes its privileges on to threads that it starts, and nobody can take them from another one. So this is for the
//! time before there are others. What was opened stays open. Nothing gives privileges back: not the end of an error, not
//! another program.

use std::{fs, io};

use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};

/// Why privileges are still there.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Others would keep theirs.
    #[error("privileges cannot be given up: there are {0} threads already")]
    Threads(usize),
    /// The system refuses.
    #[error("privileges cannot be given up")]
    System(#[source] io::Error),
    /// The system refuses.
    #[error("the memory cannot be kept from core dumps")]
    Memory(#[source] io::Error),
}

/// Gives up all capabilities, for this process and programs that it may run. `CAP_BPF` is kept if `works` says that what is to
/// go on does not work without: kernels before 5.19 ask for it whenever a map is used (c8644cd0efe7).
pub fn give_up(works: impl FnOnce() -> bool) -> Result<(), PrivilegeError> {
    let threads = fs::read_dir("/proc/self/task").map_err(PrivilegeError::System)?.count();
    if threads != 1 {
        return Err(PrivilegeError::Threads(threads));
    }
    let system = |error: rustix::io::Errno| PrivilegeError::System(error.into());
    set_no_new_privs(true).map_err(system)?;
    let allowed = capabilities(None).map_err(system)?.permitted;
    let bpf = allowed & CapabilitySet::BPF;
    set(CapabilitySet::empty(), bpf).map_err(system)?;
    let kept = if works() { CapabilitySet::empty() } else { bpf };
    set(kept, kept).map_err(system)
}

/// Keeps the memory of this process to itself: no core dumps, and nobody may trace it but who may trace everything.
pub fn hide_memory() -> Result<(), PrivilegeError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| PrivilegeError::Memory(error.into()))
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> rustix::io::Result<()> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
}
