//! Connections that begin and end.

use weir_common::tap::{Entry, RECEIVED, SENT, base, role};

use crate::{
    judge::{in_force, is_stale, judge, weir_tap_caller, weir_tap_describe},
    maps::CALLS,
    places::{current_task, place},
    socket::{AF_INET, AF_INET6, Socket, TCP, ends, has_received_end, identity, renew},
    tell::{closed, finished, opened},
};

/// States of TCP sockets (`include/net/tcp_states.h`).
mod tcp {
    pub(super) const ESTABLISHED: i32 = 1;
    pub(super) const SYN_SENT: i32 = 2;
    pub(super) const SYN_RECEIVED: i32 = 3;
    pub(super) const FIN_WAIT1: i32 = 4;
    pub(super) const FIN_WAIT2: i32 = 5;
    pub(super) const CLOSE: i32 = 7;
    pub(super) const LAST_ACK: i32 = 9;
    pub(super) const CLOSING: i32 = 11;
}

/// A socket goes from one state to another.
#[inline(always)]
pub(crate) fn changed<S: Socket>(slot: u32, socket: S, old: i32, new: i32) {
    if in_force().is_none() {
        return;
    }
    let family: u16 = socket.field(place!(sock_family));
    if family != AF_INET && family != AF_INET6 || socket.field::<u16>(place!(sock_protocol)) != TCP {
        return;
    }
    match new {
        tcp::SYN_SENT => begins(socket, role::CLIENT, false),
        tcp::ESTABLISHED => {
            let role = if old == tcp::SYN_RECEIVED { role::SERVER } else { role::CLIENT };
            begins(socket, role, true);
        }
        tcp::FIN_WAIT1 | tcp::LAST_ACK => sends_end(slot, socket, family),
        tcp::CLOSE => ends_with(socket, old),
        _ => {}
    }
}

/// A connection begins. Its entry is made before anything is moved, so that what no hook sees is seen in the end.
#[inline(always)]
fn begins<S: Socket>(socket: S, role: u8, is_established: bool) {
    let entry = socket.entry(true);
    if entry.is_null() {
        // Its calls will be counted as not followed.
        return;
    }
    // SAFETY: the kernel keeps it as long as the socket.
    let entry = unsafe { &mut *entry };
    if entry.base != base::UNKNOWN {
        // The socket had a connection before.
        let number = identity(entry, socket);
        closed(entry, number);
        renew(entry);
    }
    // Here the kernel gives out a cookie; programs without typed sockets cannot make it do so.
    identity(entry, socket);
    entry.role = role;
    // Judged without knowing the role.
    entry.generation = 0;
    if is_established && let Some(sequences) = socket.sequences() {
        entry.bases = sequences.now;
        entry.base_totals = sequences.totals;
        entry.base = base::BEGINNING;
    }
}

/// The process ends what it sends, or closes. It is the process that runs this, so a connection none of whose bytes any
/// hook has seen is judged now.
#[inline(always)]
fn sends_end<S: Socket>(slot: u32, socket: S, family: u16) {
    let entry = socket.entry(false);
    if entry.is_null() {
        return;
    }
    // SAFETY: as above.
    let entry = unsafe { &mut *entry };
    let cookie = identity(entry, socket);
    if entry.told == 0
        && let Some((control, set)) = in_force()
        && let Some(call) = CALLS.get_ptr_mut(slot)
    {
        // SAFETY: a valid element, of this CPU and this program.
        let call = unsafe { &mut *call };
        weir_tap_caller(slot.into(), set.commands.into(), set.cgroups.into());
        ends(socket, family, TCP, &mut call.ends);
        if is_stale(entry, control, &call.caller) {
            judge(slot, entry, control, set, current_task(), &call.caller, 0);
        }
        let verdict = if entry.verdict[0] == 0 { entry.verdict[1] } else { entry.verdict[0] };
        if verdict != 0 {
            let rule = set.rules[usize::from(verdict - 1) & (weir_common::tap::RULES - 1)].id;
            weir_tap_describe(slot.into());
            opened(entry, cookie, rule, &call.caller, &call.ends);
        }
    }
    finished(entry, cookie, SENT);
}

/// A connection ends. The process may go on reading what has come.
#[inline(always)]
fn ends_with<S: Socket>(socket: S, old: i32) {
    let entry = socket.entry(false);
    if entry.is_null() {
        return;
    }
    // SAFETY: as above.
    let entry = unsafe { &mut *entry };
    let Some(sequences) = socket.sequences() else { return };
    // A FIN takes a sequence number.
    let has_sent_end = matches!(old, tcp::FIN_WAIT1 | tcp::FIN_WAIT2 | tcp::LAST_ACK | tcp::CLOSING);
    let sent = since_base(entry, SENT, sequences.now[0], sequences.totals[0]);
    entry.totals[0] = sent.wrapping_sub(u64::from(has_sent_end));
    entry.totals[1] = since_base(entry, RECEIVED, sequences.now[1], sequences.totals[1]);
    entry.end_total = sequences.totals[1];
    entry.has_totals = 1 + u8::from(has_received_end(socket));
}

/// Bytes since the base. The 64-bit count may be off by what moved when the base was taken; the sequence number is not.
#[inline(always)]
fn since_base(entry: &Entry, way: u8, sequence: u32, total: u64) -> u64 {
    let side = usize::from(way & 1);
    let total = total.wrapping_sub(entry.base_totals[side]);
    let low = sequence.wrapping_sub(entry.bases[side]);
    total.wrapping_add_signed(i64::from(low.wrapping_sub(total as u32).cast_signed()))
}

/// The kernel frees a TCP socket.
#[inline(always)]
pub(crate) fn gone<S: Socket>(socket: S) {
    let entry = socket.entry(false);
    if entry.is_null() {
        return;
    }
    // SAFETY: as above.
    let entry = unsafe { &mut *entry };
    if entry.has_totals != 0
        && let Some(sequences) = socket.sequences()
    {
        // What was read after the connection had ended. Not if the socket was disconnected, as closing does that breaks off
        // (`SO_LINGER`): what was not read is gone then, the count begins anew, and the end was never there.
        let end = entry.bases[1].wrapping_add(entry.totals[1] as u32);
        let read = u64::from(sequences.now[1].wrapping_sub(end));
        let is_same = entry.has_totals == 1 + u8::from(has_received_end(socket));
        if is_same && sequences.totals[1].wrapping_sub(entry.end_total) == read && read < 1 << 31 {
            entry.totals[1] = entry.totals[1].wrapping_add(read);
        }
    }
    let number = identity(entry, socket);
    closed(entry, number);
}

/// The process has read the end of the stream.
#[inline(always)]
pub(crate) fn has_read_end<S: Socket>(socket: S) {
    /// States in which a FIN has come: closed, waiting for our end, both.
    const RECEIVED_END: u32 = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 11;
    let family: u16 = socket.field(place!(sock_family));
    if family != AF_INET && family != AF_INET6 || socket.field::<u16>(place!(sock_protocol)) != TCP {
        return;
    }
    let state: u8 = socket.field(place!(sock_state));
    if RECEIVED_END >> (state & 15) & 1 == 0 {
        return;
    }
    let entry = socket.entry(false);
    if !entry.is_null() {
        // SAFETY: as above.
        let entry = unsafe { &mut *entry };
        let number = identity(entry, socket);
        finished(entry, number, RECEIVED);
    }
}
