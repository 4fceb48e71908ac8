//! The `sockets` object: lists every IPv4 and IPv6 socket that a process of our pid namespace holds open.
//!
//! One program, called by the kernel for each open file of each task while user space reads from the iterator
//! (`iter/task_file`, since 5.8, eaaacd23910f). It changes nothing. The compiler emits no CO-RE relocations, so user
//! space finds the fields in the kernel's type information and passes their places in.

#![no_std]
#![no_main]

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_seq_write},
};
use weir_common::sockets::{Offsets, SocketRecord};

/// Where the fields are. Set by the loader.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    file_inode: 0,
    file_private: 0,
    inode_mode: 0,
    socket_file: 0,
    socket_sock: 0,
    sock_family: 0,
    sock_protocol: 0,
    sock_state: 0,
    sock_v6only: 0,
    sock_local_port: 0,
    sock_remote_port: 0,
    sock_local_v4: 0,
    sock_remote_v4: 0,
    sock_local_v6: 0,
    sock_remote_v6: 0,
    sock_net: 0,
    sock_cookie: 0,
    net_inode: 0,
    task_leader: 0,
    task_pid: 0,
    task_started: 0,
    task_command: 0,
    pid_level: 0,
    pid_numbers: 0,
    pid_number_size: 0,
    pid_number: 0,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Bits of an inode's mode that tell the kind of file, and their value for sockets.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

#[expect(clippy::cast_possible_truncation, reason = "a record has 88 bytes")]
const RECORD_LENGTH: u32 = size_of::<SocketRecord>() as u32;

/// Go on with the next file.
const NEXT: i32 = 0;

/// `struct bpf_iter__task_file`. Members are eight bytes wide, whatever the machine.
#[repr(C)]
struct Context {
    meta: *const Meta,
    task: u64,
    descriptor: u64,
    file: u64,
}

/// Beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    sequence: *mut c_void,
}

/// Reports the file if it is a socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn weir_sockets(context: *const Context) -> i32 {
    let Some(record) = socket(context) else { return NEXT };
    // SAFETY: the context is valid while the program runs; the verifier checks the load.
    let meta = unsafe { (*context).meta };
    // SAFETY: the kernel always passes the metadata, and the verifier checks the load.
    let sequence = unsafe { (*meta).sequence };
    // SAFETY: the record is on our stack. If the buffer is full, the kernel discards what was written for this file and
    // calls again for it, so the result does not matter.
    unsafe { bpf_seq_write(sequence.cast(), (&raw const record).cast_mut().cast(), RECORD_LENGTH) };
    NEXT
}

/// Everything about the file, if it is a socket of the families that we look for.
///
/// Reads fail for addresses that are not mapped, so a null pointer on the way ends in `None` like any other failure.
#[inline(always)]
fn socket(context: *const Context) -> Option<SocketRecord> {
    // The pointers are read as numbers, by the helper: the verifier refuses arithmetic on typed pointers.
    // SAFETY: only the address of the member is computed.
    let file = read::<u64>(unsafe { &raw const (*context).file } as u64, 0)?;
    // SAFETY: as above.
    let task = read::<u64>(unsafe { &raw const (*context).task } as u64, 0)?;

    let inode = read::<u64>(file, at(&raw const OFFSETS.file_inode))?;
    let mode = read::<u16>(inode, at(&raw const OFFSETS.inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // A file on disk can have the mode of a socket; only a real socket points back at its file.
    let socket = read::<u64>(file, at(&raw const OFFSETS.file_private))?;
    if read::<u64>(socket, at(&raw const OFFSETS.socket_file))? != file {
        return None;
    }
    let sock = read::<u64>(socket, at(&raw const OFFSETS.socket_sock))?;
    let family = read::<u16>(sock, at(&raw const OFFSETS.sock_family))?;

    let mut record = SocketRecord { family, ..EMPTY };
    match family {
        AF_INET => {
            let local = read::<[u8; 4]>(sock, at(&raw const OFFSETS.sock_local_v4))?;
            let remote = read::<[u8; 4]>(sock, at(&raw const OFFSETS.sock_remote_v4))?;
            record.local[..4].copy_from_slice(&local);
            record.remote[..4].copy_from_slice(&remote);
        }
        AF_INET6 => {
            record.local = read(sock, at(&raw const OFFSETS.sock_local_v6))?;
            record.remote = read(sock, at(&raw const OFFSETS.sock_remote_v6))?;
        }
        _ => return None,
    }
    record.protocol = read(sock, at(&raw const OFFSETS.sock_protocol))?;
    record.state = read(sock, at(&raw const OFFSETS.sock_state))?;
    record.v6only = read(sock, at(&raw const OFFSETS.sock_v6only))?;
    record.local_port = read(sock, at(&raw const OFFSETS.sock_local_port))?;
    record.remote_port = read(sock, at(&raw const OFFSETS.sock_remote_port))?;
    record.cookie = read(sock, at(&raw const OFFSETS.sock_cookie))?;
    let net = read::<u64>(sock, at(&raw const OFFSETS.sock_net))?;
    record.netns = read(net, at(&raw const OFFSETS.net_inode))?;

    let leader = read::<u64>(task, at(&raw const OFFSETS.task_leader))?;
    record.pid = pid_for_reader(leader)?;
    record.started = read(leader, at(&raw const OFFSETS.task_started))?;
    record.command = read(leader, at(&raw const OFFSETS.task_command))?;
    Some(record)
}

/// Number of a process in the pid namespace of the process that reads from the iterator.
#[inline(always)]
fn pid_for_reader(leader: u64) -> Option<u32> {
    // SAFETY: no arguments, no preconditions.
    let reader = unsafe { bpf_get_current_task() };
    let reader_pid = read::<u64>(reader, at(&raw const OFFSETS.task_pid))?;
    let level = read::<u32>(reader_pid, at(&raw const OFFSETS.pid_level))?;
    let pid = read::<u64>(leader, at(&raw const OFFSETS.task_pid))?;
    if read::<u32>(pid, at(&raw const OFFSETS.pid_level))? < level {
        return None;
    }
    let numbers = pid.wrapping_add(at(&raw const OFFSETS.pid_numbers));
    let number = numbers.wrapping_add(u64::from(level).wrapping_mul(at(&raw const OFFSETS.pid_number_size)));
    read(number, at(&raw const OFFSETS.pid_number))
}

const EMPTY: SocketRecord = SocketRecord {
    cookie: 0,
    started: 0,
    pid: 0,
    netns: 0,
    family: 0,
    protocol: 0,
    local_port: 0,
    remote_port: 0,
    local: [0; 16],
    remote: [0; 16],
    state: 0,
    v6only: 0,
    reserved: [0; 6],
    command: [0; 16],
};

/// Reads one of [`OFFSETS`]. The loader changes them after compilation, so the compiler must not look inside.
#[inline(always)]
fn at(offset: *const u32) -> u64 {
    // SAFETY: the pointer is to a member of a static.
    u64::from(unsafe { offset.read_volatile() })
}

/// Reads a value out of kernel memory.
#[inline(always)]
fn read<T>(structure: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel(structure.wrapping_add(offset) as *const T) }.ok()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
