//! Walks of the kernel over its own things, for each of which a program runs and writes a record.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{BorrowedFd, OwnedFd},
};

use zerocopy::FromBytes;

use super::{Command, bpf_descriptor, length, number};

/// The kernel's own buffer holds 32 KiB, so no read yields more.
const READ: usize = 32 << 10;

/// The `link_create` member of `union bpf_attr`, for iterators.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    padding: u32,
}

/// Ties an iterator program to the map whose entries it walks over (since 5.9, a5cbe05a6673). The link goes away
/// with its descriptor.
pub(crate) fn link(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
    const TRACE_ITER: u32 = 28;
    // The first member of `union bpf_iter_link_info` is the descriptor of a map. Older kernels know a shorter union,
    // and accept a longer one only if the rest is zero.
    let info = [number(map), 0];
    let mut attributes = LinkAttributes {
        program_fd: number(program),
        attach_type: TRACE_ITER,
        info: info.as_ptr() as u64,
        info_length: length(&info),
        ..LinkAttributes::default()
    };
    // SAFETY: the info outlives the call and is as long as said.
    unsafe { bpf_descriptor(Command::LinkCreate, &mut attributes) }
}

/// Begins a walk: reading from the descriptor to its end is one walk.
pub(crate) fn start(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the attributes hold no address.
    unsafe { bpf_descriptor(Command::IterCreate, &mut [number(link), 0]) }
}

/// Reads one walk to its end, and hands over each record that the program wrote.
pub(crate) fn records<R: FromBytes>(walk: OwnedFd, mut visit: impl FnMut(&R)) -> io::Result<()> {
    let mut walk = File::from(walk);
    let size = size_of::<R>();
    let mut buffer = vec![0; READ + size];
    let mut filled = 0;
    loop {
        let count = match walk.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            // EAGAIN means that a million things in a row were worth no record.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        filled += count;
        let whole = filled - filled % size;
        for record in buffer[..whole].chunks_exact(size) {
            visit(&R::read_from_bytes(record).expect("the chunk has the size of a record"));
        }
        // A read may end within a record.
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
