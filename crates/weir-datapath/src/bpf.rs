//! The bpf(2) commands that aya does not offer in the form needed here: what is known of programs and links by their
//! descriptor, links that are pinned; below, hash maps in batches ([`batch`]), iterators ([`iterator`]) and running a
//! program once ([`run`]).
//!
//! Owns the one place where that system call is made. Promises nothing of what the kernel does with it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

pub(crate) mod batch;
pub(crate) mod iterator;
pub(crate) mod run;

/// The commands of `enum bpf_cmd` that are used here.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub(crate) enum Command {
    MapCreate = 0,
    MapUpdateElem = 2,
    ProgLoad = 5,
    ObjGet = 7,
    ProgTestRun = 10,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    MapLookupBatch = 24,
    MapLookupAndDeleteBatch = 25,
    LinkCreate = 28,
    LinkUpdate = 29,
    IterCreate = 33,
    LinkDetach = 34,
}

/// Makes the system call. What it returns is a descriptor or nothing of interest.
///
/// # Safety
///
/// `T` is the beginning of the member of `union bpf_attr` that belongs to the command, and what its addresses point to is
/// there until this returns, as long as the other members say, and free to be written where the command writes.
pub(crate) unsafe fn bpf<T>(command: Command, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: as promised by the caller.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

/// As [`bpf`], for commands that return a descriptor of the caller's own.
///
/// # Safety
///
/// As of [`bpf`].
pub(crate) unsafe fn bpf_descriptor<T>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as promised by the caller.
    let outcome = unsafe { bpf(command, attributes) }?;
    let number = i32::try_from(outcome).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor as attributes have it.
pub(crate) fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// The length of something in bytes, as attributes have it.
fn length<T: ?Sized>(of: &T) -> u32 {
    u32::try_from(size_of_val(of)).unwrap_or(u32::MAX)
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { bpf_descriptor(Command::ObjGet, &mut [path.as_ptr() as u64, 0]) }
}

/// Puts another program in the place of that of a link, at once (since 5.7, 0c991ebc8c69).
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the attributes hold no address.
    unsafe { bpf(Command::LinkUpdate, &mut [number(link), number(program), 0, 0]) }.map(drop)
}

/// Takes a program off its hook, also if somebody else holds the link (since 5.9, 73b11c2ab072).
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the attributes hold no address.
    unsafe { bpf(Command::LinkDetach, &mut [number(link), 0]) }.map(drop)
}

/// The `info` member of `union bpf_attr`.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// Asks the kernel what it knows of a program or link: the first `N` bytes, in words of four. What an older kernel does not
/// know is zero.
fn object_info<const N: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; N]> {
    /// The kernel writes words of eight.
    #[repr(align(8))]
    struct Words<const N: usize>([u32; N]);
    let mut info = Words([0; N]);
    let mut attributes =
        InfoAttributes { fd: number(object), length: length(&info.0), info: info.0.as_mut_ptr() as u64 };
    // SAFETY: the kernel writes at most `length` bytes, and follows no address in what is all zero.
    unsafe { bpf(Command::ObjGetInfoByFd, &mut attributes) }?;
    Ok(info.0)
}

/// How often a program was not run, because it was running on that CPU already (since 5.12, 9ed9e9ba2337; 0 before).
pub(crate) fn skipped_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// Position of `recursion_misses` in `struct bpf_prog_info`, in words.
    const MISSES: usize = 208 / 4;
    let info = object_info::<{ MISSES + 2 }>(program)?;
    let halves = [info[MISSES].to_ne_bytes(), info[MISSES + 1].to_ne_bytes()];
    Ok(u64::from_ne_bytes(*halves.as_flattened().first_chunk().expect("two words are eight bytes")))
}

/// Index of the interface that a TCX link is on; 0 once that is gone (since 6.6, e420bed02507).
pub(crate) fn tcx_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    /// Type, number, program and (behind padding) what TCX adds, in words.
    const INTERFACE: usize = 4;
    Ok(object_info::<8>(link)?[INTERFACE])
}

/// Number of the cgroup that a link is on; 0 once that is gone (since 5.7, 0c991ebc8c69).
pub(crate) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    /// Where the halves of the number are, behind type, number, program and padding, in words.
    const CGROUP: usize = 4;
    let info = object_info::<8>(link)?;
    Ok(u64::from(info[CGROUP]) | u64::from(info[CGROUP + 1]) << 32)
}
