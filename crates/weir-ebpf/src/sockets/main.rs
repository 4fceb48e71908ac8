//! The `sockets` object: who has which IPv4 or IPv6 socket.
//!
//! `weir_sockets` is called by the kernel for each open file of each task of our pid namespace while user space reads
//! from the iterator (`iter/task_file`, since 5.8, eaaacd23910f). `weir_opened` is called for each socket that a
//! process of a cgroup opens. They change nothing and allow everything. The compiler emits no CO-RE relocations, so
//! user space finds the fields in the kernel's type information and passes their places in (`fields`).

#![no_std]
#![no_main]

mod fields;

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::generated::{bpf_get_socket_cookie, bpf_seq_write},
    macros::{btf_map, cgroup_sock},
    programs::SockContext,
};
use weir_common::sockets::{OPENINGS, ProcessRecord, SocketRecord};

use crate::fields::{OFFSETS, at, current_task, level_of, process, read};

/// How deep the pid namespace of our user space lies. The end of each walk writes it, so a walk must come before `weir_opened`.
#[btf_map]
static LEVEL: Array<u32, 1> = Array::new();

/// Who opened the socket with this cookie. User space takes the entries out.
#[btf_map]
static OPENED: LruHashMap<u64, ProcessRecord, OPENINGS> = LruHashMap::new();

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Bits of an inode's mode that tell the kind of file, and their value for sockets.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

#[expect(clippy::cast_possible_truncation, reason = "a record has 88 bytes")]
const RECORD_LENGTH: u32 = size_of::<SocketRecord>() as u32;

/// Go on with the next file.
const NEXT: i32 = 0;
/// The socket may be opened.
const ALLOW: i32 = 1;

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
    if file == 0 {
        // The walk is over.
        remember_level();
        return None;
    }

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

    record.process = process(task, level_of(current_task())?)?;
    Some(record)
}

/// Stores how deep the pid namespace lies that the reader lives in.
#[inline(always)]
fn remember_level() {
    if let Some(level) = level_of(current_task())
        && let Some(known) = LEVEL.get_ptr_mut(0)
    {
        // SAFETY: the lookup gave a valid element; every reader is our own process and writes the same.
        unsafe { known.write_volatile(level) };
    }
}

/// Notes who opens a socket, so that those are known too that live shorter than the time between two walks.
///
/// Runs in the process that opens the socket and takes about 1 µs. Connections that are accepted do not come here; the
/// listener is known.
#[cgroup_sock(sock_create)]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
fn weir_opened(context: SockContext) -> i32 {
    // SAFETY: the context is the socket, as the helper wants it.
    let cookie = unsafe { bpf_get_socket_cookie(context.sock.cast()) };
    if let Some(&level) = LEVEL.get(0)
        && let Some(opener) = process(current_task(), level)
    {
        // The map makes room by itself, so this fails only while another CPU holds its lock: then the walk must do.
        let _refused = OPENED.insert(cookie, opener, 0);
    }
    ALLOW
}

const EMPTY: SocketRecord = SocketRecord {
    cookie: 0,
    process: ProcessRecord { started: 0, pid: 0, reserved: 0, command: [0; 16] },
    netns: 0,
    family: 0,
    protocol: 0,
    local_port: 0,
    remote_port: 0,
    state: 0,
    v6only: 0,
    reserved: [0; 2],
    local: [0; 16],
    remote: [0; 16],
};

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
