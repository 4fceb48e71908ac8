//! The `tap` object: copies what chosen processes send and receive, at the end of their system calls.
//!
//! Attached where the kernel has told how many bytes a socket moved, in the task that moved them (`tp_btf` of
//! `sock_send_length` and `sock_recv_length`, since 6.3, 6e6eda44b939). So what counts is what happened, not what was asked for; the
//! bytes are those in the memory of the process at that moment. On other kernels the same is done at the end of the functions that
//! send and receive (`fexit`, or probes), or at the end of system calls (`ended`). Nothing is changed. While no rule is in force each program
//! ends after one look-up.
//!
//! `moved` is the way of an operation; `judge` says which rule lets it through; `system_call` finds its bytes; `copy` puts them into
//! the ring; `state` follows connections, `existing` finds those that were there before; `tell` tells of them. `socket` and
//! `places` read what the kernel knows: the compiler emits no CO-RE relocations, so user space finds the fields in the kernel's type
//! information. Needs 5.17 for loops.

#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![expect(internal_features, reason = "the BPF target has no atomic types")]

mod assembly;
mod copy;
mod ended;
mod existing;
mod judge;
mod maps;
mod moved;
mod peer;
mod places;
mod socket;
mod state;
mod system_call;
mod tell;

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, cgroup_sock_addr, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
        SockAddrContext,
    },
};
use weir_common::tap::{RECEIVED, SENT};

use crate::{
    maps::{MESSAGES, PROBED},
    moved::moved,
    places::place,
    socket::{Plain, Socket, TCP, Typed, forget, typed},
};

/// Places of programs in `CALLS`.
mod slot {
    pub(crate) const SENT: u32 = 0;
    pub(crate) const RECEIVED: u32 = 1;
    pub(crate) const STATE: u32 = 2;
    pub(crate) const EXISTING: u32 = 3;
    pub(crate) const ENDED: u32 = 0;
    pub(crate) const SENT_6: u32 = 4;
    pub(crate) const RECEIVED_6: u32 = 5;
}

/// Flags of receive calls (`include/linux/socket.h`).
mod flag {
    pub(crate) const OUT_OF_BAND: i32 = 1;
    pub(crate) const PEEK: i32 = 2;
    pub(crate) const TRUNCATE: i32 = 0x20;
    pub(crate) const ERROR_QUEUE: i32 = 0x2000;
}

/// A socket has sent.
#[btf_tracepoint(function = "sock_send_length")]
fn weir_tap_sent(context: BtfTracePointContext) -> i32 {
    sent(slot::SENT, Typed(context.arg(0)), context.arg(1));
    0
}

/// A socket has received.
#[btf_tracepoint(function = "sock_recv_length")]
fn weir_tap_received(context: BtfTracePointContext) -> i32 {
    received(slot::RECEIVED, Typed(context.arg(0)), context.arg(1), context.arg(2));
    0
}

/// A TCP socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn weir_tap_state(context: BtfTracePointContext) -> i32 {
    state::changed(slot::STATE, Typed(context.arg(0)), context.arg(1), context.arg(2));
    0
}

/// A TCP socket is freed.
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn weir_tap_gone(context: BtfTracePointContext) -> i32 {
    let socket = Typed(context.arg(0));
    state::gone(socket);
    forget(socket);
    0
}

/// Notes ports that somebody waits on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn weir_tap_ports(context: *const existing::Context) -> i32 {
    existing::note_listener(context);
    existing::NEXT
}

/// Tells of sockets that are open.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn weir_tap_open(context: *const existing::Context) -> i32 {
    existing::tell(slot::EXISTING, context);
    existing::NEXT
}

/// The functions that send and receive, at their end: for kernels without these tracepoints.
#[fexit(function = "inet_sendmsg")]
fn weir_tap_sent_4(context: FExitContext) -> i32 {
    if let Some(socket) = of_socket(context.arg(0)) {
        sent(slot::SENT, socket, context.arg(3));
    }
    0
}

/// The same for IPv6.
#[fexit(function = "inet6_sendmsg")]
fn weir_tap_sent_6(context: FExitContext) -> i32 {
    if let Some(socket) = of_socket(context.arg(0)) {
        sent(slot::SENT_6, socket, context.arg(3));
    }
    0
}

/// Receiving.
#[fexit(function = "inet_recvmsg")]
fn weir_tap_received_4(context: FExitContext) -> i32 {
    if let Some(socket) = of_socket(context.arg(0)) {
        received(slot::RECEIVED, socket, context.arg(4), context.arg(3));
    }
    0
}

/// The same for IPv6.
#[fexit(function = "inet6_recvmsg")]
fn weir_tap_received_6(context: FExitContext) -> i32 {
    if let Some(socket) = of_socket(context.arg(0)) {
        received(slot::RECEIVED_6, socket, context.arg(4), context.arg(3));
    }
    0
}

/// The same functions, probed: at their beginning the socket is noted.
#[kprobe]
fn weir_tap_probe(context: ProbeContext) -> u32 {
    let socket: u64 = context.arg(0).unwrap_or(0);
    let flags: u64 = context.arg(3).unwrap_or(0);
    let _full = PROBED.insert(thread(), [socket, flags], 0);
    0
}

/// At their end.
#[kretprobe]
fn weir_tap_probe_sent(context: RetProbeContext) -> u32 {
    if let Some((socket, _)) = probed() {
        sent(slot::SENT, socket, context.ret());
    }
    0
}

/// At their end.
#[kretprobe]
fn weir_tap_probe_received(context: RetProbeContext) -> u32 {
    if let Some((socket, flags)) = probed() {
        received(slot::RECEIVED, socket, context.ret(), flags);
    }
    0
}

/// Notes where a datagram came from: the socket does not know, and the process is told later.
#[cgroup_sock_addr(recvmsg4)]
fn weir_tap_peer_4(context: SockAddrContext) -> i32 {
    peer::note_4(&context);
    peer::ALLOW
}

/// The same for IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn weir_tap_peer_6(context: SockAddrContext) -> i32 {
    peer::note_6(&context);
    peer::ALLOW
}

/// The ends of system calls.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn weir_tap_syscall(context: RawTracePointContext) -> i32 {
    ended::ended(context.arg(1));
    0
}

/// Counts messages of a call from its beginning.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn weir_tap_messages(context: RawTracePointContext) -> i32 {
    let number: u64 = context.arg(1);
    if number == system_call::number::SENDMMSG || number == system_call::number::RECVMMSG {
        let _full = MESSAGES.insert(thread(), 0, 0);
    }
    0
}

/// The thread that runs this.
#[inline(always)]
pub(crate) fn thread() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_get_current_pid_tgid() }
}

/// What the function was called with that is about to return.
#[inline(always)]
fn probed() -> Option<(Plain, i32)> {
    // SAFETY: the value is copied, and this thread alone writes it.
    let [socket, flags] = *unsafe { PROBED.get(thread()) }?;
    let _gone = PROBED.remove(thread());
    let socket = places::read::<u64>(socket, place!(socket_sock))?;
    (socket != 0).then_some((Plain(socket), flags as i32))
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
fn of_socket(socket: *const u8) -> Option<Typed> {
    let socket: *mut u8 = typed(socket, place!(socket_sock));
    (!socket.is_null()).then_some(Typed(socket))
}

#[inline(always)]
fn sent<S: Socket>(slot: u32, socket: S, result: i32) {
    let message = next_message();
    if result >= 0 {
        moved(slot, socket, SENT, result.cast_unsigned(), false, message, 0);
    }
}

#[inline(always)]
fn received<S: Socket>(slot: u32, socket: S, result: i32, flags: i32) {
    let message = next_message();
    // What is looked at stays where it is; messages about errors and urgent bytes are no part of the stream.
    if result < 0 || flags & (flag::PEEK | flag::ERROR_QUEUE | flag::OUT_OF_BAND) != 0 {
        if flags & flag::PEEK != 0 {
            peer::forget_note(socket);
        }
        return;
    }
    if result == 0 {
        state::has_read_end(socket);
    }
    let is_discarded = flags & flag::TRUNCATE != 0 && socket.field::<u16>(place!(sock_protocol)) == TCP;
    moved(slot, socket, RECEIVED, result.cast_unsigned(), is_discarded, message, 0);
}

/// Which message of its call a thread is at. Each message comes here once, whatever became of it.
#[inline(always)]
fn next_message() -> u64 {
    if place!(messages) == 0 {
        return 0;
    }
    let Some(next) = MESSAGES.get_ptr_mut(thread()) else { return 0 };
    // SAFETY: a valid element, which this thread alone writes.
    let message = unsafe { next.read() };
    // SAFETY: as above.
    unsafe { next.write(message + 1) };
    message
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
