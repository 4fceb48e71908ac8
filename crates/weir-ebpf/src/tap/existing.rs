//! Sockets that were open before the tap: a walk over the open files of all tasks (`iter/task_file`, since 5.8).
//!
//! Two walks: the first notes on which ports somebody waits for connections, the second judges.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};
use weir_common::tap::{ListenerKey, OpenedRecord, base, role};

use crate::{
    assembly::fetch_add,
    judge::{in_force, is_stale, judge, weir_tap_judge, weir_tap_other},
    maps::{CALLS, LISTENERS},
    places::{place, read},
    socket::{
        AF_INET, AF_INET6, AF_UNIX, Socket, TCP, Typed, ends, identity, is_of_datagrams, remote_end, typed,
    },
    tell::opened_record,
};

/// Go on with the next file.
pub(crate) const NEXT: i32 = 0;

const LISTEN: u8 = 10;
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const SYN_RECEIVED: u8 = 3;
const SYN_SENT: u8 = 2;

#[expect(clippy::cast_possible_truncation, reason = "a record has 112 bytes")]
const RECORD_LENGTH: u32 = size_of::<OpenedRecord>() as u32;

/// `struct bpf_iter__task_file`. Members are eight bytes wide, whatever the machine.
#[repr(C)]
pub(crate) struct Context {
    meta: *const Meta,
    task: *mut u8,
    descriptor: u64,
    file: *mut u8,
}

/// Beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    sequence: *mut c_void,
}

/// The socket of the file, if it is one.
#[inline(always)]
fn socket(context: *const Context) -> Option<Typed> {
    // SAFETY: the context is valid while the program runs; the verifier checks the load.
    let file = unsafe { (*context).file };
    if file.is_null() {
        return None;
    }
    // SAFETY: a typed file, which the verifier has seen to be there.
    let socket = unsafe { bpf_sock_from_file(file.cast()) }.cast::<u8>();
    if socket.is_null() {
        return None;
    }
    let socket: *mut u8 = typed(socket, place!(socket_sock));
    if socket.is_null() { None } else { Some(Typed(socket)) }
}

#[inline(always)]
fn key(socket: Typed, port: u16) -> ListenerKey {
    let net: u64 = socket.field(place!(sock_net));
    ListenerKey { netns: read(net, place!(net_inode)).unwrap_or(0), port, round: 0 }
}

/// Notes the port if somebody waits for connections there.
#[inline(always)]
pub(crate) fn note_listener(context: *const Context) {
    let Some(socket) = socket(context) else { return };
    let family: u16 = socket.field(place!(sock_family));
    let state: u8 = socket.field(place!(sock_state));
    if family != AF_INET && family != AF_INET6 || state != LISTEN {
        return;
    }
    let key = key(socket, socket.field(place!(sock_local_port)));
    let _full = LISTENERS.insert(key, 1, 0);
}

/// Judges the socket and tells that it is let through, if it is.
#[inline(always)]
pub(crate) fn tell(slot: u32, context: *const Context) {
    let Some((control, set)) = in_force() else { return };
    let Some(socket) = socket(context) else { return };
    let family: u16 = socket.field(place!(sock_family));
    let protocol: u16 = if family == AF_UNIX { 0 } else { socket.field(place!(sock_protocol)) };
    let state: u8 = socket.field(place!(sock_state));
    let is_wanted = match family {
        AF_INET | AF_INET6 => {
            is_of_datagrams(protocol)
                || protocol == TCP && (state == ESTABLISHED || state == CLOSE_WAIT)
                || protocol == TCP && (state == SYN_RECEIVED || state == SYN_SENT)
        }
        AF_UNIX => place!(unix) != 0,
        _ => false,
    };
    if !is_wanted {
        return;
    }
    let Some(call) = CALLS.get_ptr_mut(slot) else { return };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    let entry = socket.entry(true);
    if entry.is_null() {
        return;
    }
    // SAFETY: the kernel keeps it as long as the socket, which the file holds.
    let entry = unsafe { &mut *entry };
    // Never a base that an operation has set: positions have begun there.
    if protocol == TCP
        && entry.base == base::UNKNOWN
        && let Some(sequences) = socket.sequences()
    {
        entry.bases = sequences.now;
        entry.base_totals = sequences.totals;
        entry.base = base::JOINED;
    }
    // Read as a number, by the helper: functions take no typed pointers.
    // SAFETY: only the address of the member is computed.
    let Some(task) = read::<u64>(unsafe { &raw const (*context).task } as u64, 0) else { return };
    weir_tap_other(slot.into(), task);
    ends(socket, family, protocol, &mut call.ends);
    if protocol == TCP && entry.role == role::UNKNOWN {
        let listener = key(socket, call.ends.local_port);
        // SAFETY: the value is not looked at.
        let is_server = unsafe { LISTENERS.get(&listener) }.is_some();
        entry.role = if is_server { role::SERVER } else { role::CLIENT };
        entry.generation = 0;
    }
    if entry.told != 0 {
        return;
    }
    if is_of_datagrams(protocol) {
        let remote = remote_end(socket, family);
        if entry.remote != remote {
            entry.remote = remote;
            entry.generation = 0;
        }
    }
    let both = if is_of_datagrams(protocol) && entry.remote == 0 && set.ends != 0 {
        // By its own end alone. Which datagrams are let through is another verdict, which is kept there.
        weir_tap_judge(slot.into(), task, entry.role.into())
    } else {
        if is_stale(entry, control, &call.caller) {
            judge(slot, entry, control, set, task, &call.caller, 0);
        }
        u64::from(entry.verdict[0]) | u64::from(entry.verdict[1]) << 8
    };
    let verdict = if both as u8 == 0 { (both >> 8) as u8 } else { both as u8 };
    if verdict == 0 {
        return;
    }
    let rule = set.rules[usize::from(verdict - 1) & (weir_common::tap::RULES - 1)].id;
    let number = identity(entry, socket);
    let mut record = opened_record(entry, number, rule, &call.caller, &call.ends);
    record.is_existing = 1;
    // SAFETY: as above.
    let meta = unsafe { (*context).meta };
    // SAFETY: the kernel always passes the metadata, and the verifier checks the load.
    let sequence = unsafe { (*meta).sequence };
    // SAFETY: the record is on our stack.
    let outcome =
        unsafe { bpf_seq_write(sequence.cast(), (&raw const record).cast_mut().cast(), RECORD_LENGTH) };
    // If the buffer is full, the kernel discards what was written for this file and calls again for it.
    if outcome == 0 {
        fetch_add(&raw mut entry.told, 1);
    }
}
