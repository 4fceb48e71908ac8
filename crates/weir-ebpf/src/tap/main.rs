//! The `tap` object: copies what chosen processes send and receive, at the end of their system calls.
//!
//! Attached where the kernel has told how many bytes a socket moved, in the task that moved them (`tp_btf` of
//! `sock_send_length` and `sock_recv_length`, since 6.3, 6e6eda44b939). So what counts is what happened, not what was asked for; the
//! bytes are those in the memory of the process at that moment. Nothing is changed. While no rule is in force each program
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
mod existing;
mod judge;
mod maps;
mod moved;
mod places;
mod socket;
mod state;
mod system_call;
mod tell;

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use weir_common::tap::{RECEIVED, SENT};

use crate::{
    maps::MESSAGES,
    moved::moved,
    places::place,
    socket::{Socket as _, TCP, Typed},
};

/// Places of programs in `CALLS`.
mod slot {
    pub(crate) const SENT: u32 = 0;
    pub(crate) const RECEIVED: u32 = 1;
    pub(crate) const STATE: u32 = 2;
    pub(crate) const EXISTING: u32 = 3;
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
    sent(Typed(context.arg(0)), context.arg(1));
    0
}

/// A socket has received.
#[btf_tracepoint(function = "sock_recv_length")]
fn weir_tap_received(context: BtfTracePointContext) -> i32 {
    received(Typed(context.arg(0)), context.arg(1), context.arg(2));
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
    state::gone(Typed(context.arg(0)));
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

#[inline(always)]
fn sent(socket: Typed, result: i32) {
    let message = next_message();
    if result >= 0 {
        moved(slot::SENT, socket, SENT, result.cast_unsigned(), false, message);
    }
}

#[inline(always)]
fn received(socket: Typed, result: i32, flags: i32) {
    let message = next_message();
    // What is looked at stays where it is; messages about errors and urgent bytes are no part of the stream.
    if result < 0 || flags & (flag::PEEK | flag::ERROR_QUEUE | flag::OUT_OF_BAND) != 0 {
        return;
    }
    if result == 0 {
        state::has_read_end(socket);
    }
    let is_discarded = flags & flag::TRUNCATE != 0 && socket.field::<u16>(place!(sock_protocol)) == TCP;
    moved(slot::RECEIVED, socket, RECEIVED, result.cast_unsigned(), is_discarded, message);
}

/// Which message of its call a thread is at. Each message comes here once, whatever became of it.
#[inline(always)]
fn next_message() -> u64 {
    if place!(messages) == 0 {
        return 0;
    }
    // SAFETY: no arguments, no preconditions.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    let Some(next) = MESSAGES.get_ptr_mut(&thread) else { return 0 };
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
