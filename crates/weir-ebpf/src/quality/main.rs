//! The `quality` object: what TCP sockets know of the way to the other end.
//!
//! `weir_tcp` is called by the kernel when a connection begins and when it ends, a handful of times in the life of a
//! socket, never per packet. It marks sockets as known to us by an entry in their own storage. `weir_tcp_walk` is
//! called for each marked socket while user space reads from the iterator (`iter/bpf_sk_storage_map`, since 5.9,
//! 5ce6e77c7edf). So reading costs a walk now and then, and nothing while packets flow.
//!
//! Others may have programs at the same place. Callbacks are a set of flags per socket: one is added, none is ever taken
//! away. The reply to the kernel is left as it is, and no operation is ever refused.

#![no_std]
#![no_main]

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
        bpf_sock,
    },
    btf_maps::{HashMap, PerCpuArray, SkStorage},
    helpers::{
        bpf_probe_read_kernel,
        generated::{
            bpf_get_socket_cookie, bpf_seq_write, bpf_sk_storage_delete, bpf_sk_storage_get,
            bpf_sock_ops_cb_flags_set,
        },
    },
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use weir_common::quality::{CLOSINGS, Offsets, QualityRecord};

/// Where the fields are. Set by the loader.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets { srtt: 0, minimum_rtt: 0, retransmits: 0, reserved: 0 };

/// Cookies of the sockets that we know, kept in the sockets themselves.
#[btf_map]
static KNOWN: SkStorage<u64> = SkStorage::new();

/// What sockets knew when they were closed. User space takes the entries out.
#[btf_map]
static CLOSED: HashMap<u64, QualityRecord, CLOSINGS> = HashMap::new();

/// Closed sockets for which there was no room.
#[btf_map]
static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The kernel goes on, whatever we did.
const GO_ON: u32 = 1;
/// Go on with the next socket.
const NEXT: i32 = 0;
/// The entry must be new.
const NEW: u64 = aya_ebpf::bindings::BPF_NOEXIST as u64;

#[expect(clippy::cast_possible_truncation, reason = "a record has 24 bytes")]
const RECORD_LENGTH: u32 = size_of::<QualityRecord>() as u32;

/// Notes the beginning and the end of connections.
#[sock_ops]
fn weir_tcp(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB
        | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => begins(&context),
        BPF_SOCK_OPS_STATE_CB if context.arg(1) == BPF_TCP_CLOSE => ends(&context),
        _ => {}
    }
    GO_ON
}

/// Marks the socket and asks to be told when its state changes.
#[inline(always)]
fn begins(context: &SockOpsContext) {
    let socket = socket(context);
    if socket.is_null() {
        return;
    }
    // SAFETY: the socket is that of the context and not null.
    let known = unsafe {
        bpf_sk_storage_get(
            (&raw const KNOWN).cast_mut().cast(),
            socket.cast(),
            ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<u64>();
    if known.is_null() {
        // The socket has no memory to spare: nothing will be known of it, which is told by absence.
        return;
    }
    // SAFETY: the context is what the helper wants.
    let cookie = unsafe { bpf_get_socket_cookie(context.ops.cast()) };
    // SAFETY: the storage is valid while the socket is, and the kernel holds the socket's lock.
    unsafe { known.write(cookie) };
    let flags = context.cb_flags();
    if flags & BPF_SOCK_OPS_STATE_CB_FLAG == 0 {
        let flags = (flags | BPF_SOCK_OPS_STATE_CB_FLAG).cast_signed();
        // SAFETY: the context is valid. Where the kernel refuses, the walk still knows the socket while it lives.
        unsafe { bpf_sock_ops_cb_flags_set(context.ops, flags) };
    }
}

/// Keeps what the socket knew and takes the mark away.
#[inline(always)]
fn ends(context: &SockOpsContext) {
    let socket = socket(context);
    if socket.is_null() {
        return;
    }
    // SAFETY: the socket is that of the context and not null.
    let known = unsafe {
        bpf_sk_storage_get((&raw const KNOWN).cast_mut().cast(), socket.cast(), ptr::null_mut(), 0)
    }
    .cast::<u64>();
    if known.is_null() {
        return;
    }
    // SAFETY: the storage is valid while the socket is.
    let cookie = unsafe { known.read() };
    // SAFETY: the context is valid; these members are the socket's own.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "fields of the same socket")]
    let record = unsafe {
        QualityRecord {
            cookie,
            srtt_eighths_us: (*context.ops).srtt_us,
            minimum_rtt_us: (*context.ops).rtt_min,
            retransmits: (*context.ops).total_retrans,
            reserved: 0,
        }
    };
    if CLOSED.insert(cookie, record, NEW).is_err()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: a valid element of this CPU.
        let before = unsafe { lost.read() };
        // SAFETY: as above.
        unsafe { lost.write(before.wrapping_add(1)) };
    }
    // SAFETY: as above.
    unsafe { bpf_sk_storage_delete((&raw const KNOWN).cast_mut().cast(), socket.cast()) };
}

#[inline(always)]
fn socket(context: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context is valid; the kernel gives null where there is no full socket.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one field, which is a pointer in each variant")]
    unsafe {
        (*context.ops).__bindgen_anon_2.sk
    }
}

/// `struct bpf_iter__bpf_sk_storage_map`. Members are eight bytes wide, whatever the machine.
#[repr(C)]
struct Context {
    meta: *const Meta,
    map: u64,
    socket: u64,
    value: *const u64,
}

/// Beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    sequence: *mut c_void,
}

/// Reports what a marked socket knows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn weir_tcp_walk(context: *const Context) -> i32 {
    let Some(record) = quality(context) else { return NEXT };
    // SAFETY: the context is valid while the program runs; the verifier checks the load.
    let meta = unsafe { (*context).meta };
    // SAFETY: the kernel always passes the metadata, and the verifier checks the load.
    let sequence = unsafe { (*meta).sequence };
    // SAFETY: the record is on our stack. If the buffer is full, the kernel discards what was written for this socket
    // and calls again for it, so the result does not matter.
    unsafe { bpf_seq_write(sequence.cast(), (&raw const record).cast_mut().cast(), RECORD_LENGTH) };
    NEXT
}

#[inline(always)]
fn quality(context: *const Context) -> Option<QualityRecord> {
    // The pointers are read as numbers, by the helper: the verifier refuses arithmetic on typed pointers.
    // SAFETY: only the address of the member is computed.
    let socket = read::<u64>(unsafe { &raw const (*context).socket } as u64, 0)?;
    // SAFETY: as above.
    let value = read::<u64>(unsafe { &raw const (*context).value } as u64, 0)?;
    if socket == 0 || value == 0 {
        // The walk is over.
        return None;
    }
    let cookie = read::<u64>(value, 0)?;
    if cookie == 0 {
        // It is being marked at this moment.
        return None;
    }
    Some(QualityRecord {
        cookie,
        srtt_eighths_us: read(socket, at(&raw const OFFSETS.srtt))?,
        minimum_rtt_us: read(socket, at(&raw const OFFSETS.minimum_rtt))?,
        retransmits: read(socket, at(&raw const OFFSETS.retransmits))?,
        reserved: 0,
    })
}

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
