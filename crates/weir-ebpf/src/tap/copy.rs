//! Bytes of a process into the ring: reserve room of a class, fill it in place, submit.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP},
    helpers::generated::{bpf_loop, bpf_probe_read_user, bpf_ringbuf_query},
};
use weir_common::tap::{CLASSES, Caller, DATA, Ends, GAP, RECEIVED, RecordHeader, Rule, SEGMENTS, reason};

use crate::{
    assembly::{copy_words, opaque},
    maps::{CALLS, RING},
    peer::named_peer,
    places::place,
    socket::is_of_datagrams,
    system_call::{SystemCall, current, is_compat, is_in_progress, locate},
    tell::wakeup,
};

/// A call that is being looked at. Too much for the stack.
#[repr(C)]
pub(crate) struct Call {
    /// What goes in front of its records.
    pub(crate) header: RecordHeader,
    /// Who makes it.
    pub(crate) caller: Caller,
    /// The ends of the socket.
    pub(crate) ends: Ends,
    /// What lets it through.
    pub(crate) rule: Rule,
    /// Protocol of the socket.
    pub(crate) protocol: u64,
    /// Bytes that it moved.
    pub(crate) amount: u64,
    /// Whether they cannot be copied, and why: a reason and 1.
    pub(crate) obstacle: u64,
    /// Bytes that the socket's calls have copied.
    pub(crate) used: u64,
    /// Who spoke last on the socket, and 1.
    pub(crate) speaker: u64,
    /// Bytes that the speaker has said since the other one did.
    pub(crate) spoken: u64,
    /// Bytes that may be copied.
    pub(crate) wanted: u64,
    /// Why not more.
    pub(crate) beyond: u64,
    /// Bytes that are told as a gap behind those copied.
    pub(crate) gap: u64,
    /// Why.
    pub(crate) gap_reason: u64,
    /// Bytes that were dealt with: copied, lost, or not readable.
    pub(crate) done: u64,
    /// Of these, copied.
    pub(crate) captured: u64,
    /// Of these, lost.
    pub(crate) lost: u64,
    /// Of these, not readable.
    pub(crate) faults: u64,
    /// Of those not readable, and of other gaps: not told.
    pub(crate) untold: u64,
    /// Where the next bytes are.
    pub(crate) source: u64,
    /// How many are there.
    pub(crate) left: u64,
    /// Where the next segment is described.
    pub(crate) next: u64,
    /// How many segments follow.
    pub(crate) segments: u64,
    /// Address of the peer's name, and its length.
    pub(crate) name: u64,
    pub(crate) name_length: u64,
    /// The socket, where the system call is looked at after its end, and what it came with.
    pub(crate) socket: u64,
    pub(crate) origin: SystemCall,
    /// Bytes of messages behind this one.
    pub(crate) behind: u64,
    /// Which of several messages it is.
    pub(crate) message: u64,
    /// Whether it has more segments than are followed.
    pub(crate) has_more: u64,
    /// Whether a description of a segment could not be read.
    pub(crate) is_broken: u64,
}

/// A record with room for `N` bytes.
#[repr(C)]
struct Record<const N: usize> {
    header: RecordHeader,
    bytes: [u8; N],
}

/// What the loop is told.
struct Loop {
    slot: u32,
}

/// Tells of the call that is in the slot: copies what the rule wants, and makes gaps of the rest.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_copy(slot: u64, way: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    let way = way as u8;
    if call.amount == 0 {
        piece(call, 0);
        return 0;
    }
    if call.obstacle != 0 {
        return leave_out(call, call.amount, call.obstacle - 1);
    }
    // Who the other end of a datagram is matters also where its bytes do not.
    let is_named = is_of_datagrams(call.protocol as u16)
        && (way != RECEIVED || place!(ended) != 0)
        && call.header.has_peer == 0;
    if call.wanted == 0 && !is_named {
        return leave_out(call, call.amount, call.beyond);
    }
    let reached = if !is_in_progress() {
        Err(reason::KERNEL)
    } else if is_compat() {
        Err(reason::COMPAT)
    } else {
        locate(call, &current(), way, call.amount)
    };
    if is_named && reached.is_ok() {
        named_peer(call);
    }
    if call.wanted == 0 {
        return leave_out(call, call.amount, call.beyond);
    }
    if let Err(why) = reached {
        return leave_out(call, call.amount, why.into());
    }
    copy(slot as u32, call);
    let rest = call.amount.wrapping_sub(call.done);
    if rest == 0 {
        return 0;
    }
    let why = if call.is_broken != 0 {
        reason::FAULT.into()
    } else if call.done >= call.wanted {
        call.beyond
    } else if call.has_more != 0 {
        reason::SEGMENTS.into()
    } else {
        reason::TRUNCATED.into()
    };
    leave_out(call, rest, why)
}

#[inline(always)]
fn leave_out(call: &mut Call, length: u64, why: u64) -> u64 {
    call.gap = length;
    call.gap_reason = why;
    gap(call, length, why as u8);
    0
}

/// Copies what is wanted of the call, as far as there is memory and room for it.
#[inline(always)]
fn copy(slot: u32, call: &mut Call) {
    let mut context = Loop { slot };
    // Each step takes a segment or a piece of it: the largest call has 64 pieces if it lies in one.
    let steps = (call.segments as u32 & 0x7ff) + 80;
    // SAFETY: the function and the context are what the helper expects; nothing of ours is borrowed meanwhile.
    unsafe { bpf_loop(steps, step as *mut c_void, (&raw mut context).cast(), 0) };
}

/// One step: the next piece of the segment, or of the next one. 1 ends the loop.
extern "C" fn step(_number: u64, context: *mut Loop) -> i64 {
    // SAFETY: the context outlives the loop.
    let slot = unsafe { (*context).slot };
    let Some(call) = CALLS.get_ptr_mut(slot) else { return 1 };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    if call.done >= call.wanted {
        return 1;
    }
    if call.left == 0 {
        if call.segments == 0 {
            return 1;
        }
        let mut segment = [0_u64; 2];
        if !read_user(&mut segment, call.next) {
            call.is_broken = 1;
            return 1;
        }
        call.next = call.next.wrapping_add(16);
        call.segments -= 1;
        call.source = segment[0];
        call.left = segment[1];
        if call.left == 0 {
            return 0;
        }
    }
    let mut length = call.wanted - call.done;
    if call.left < length {
        length = call.left;
    }
    if length > CLASSES[4] as u64 {
        length = CLASSES[4] as u64;
    }
    piece(call, length);
    call.source = call.source.wrapping_add(length);
    call.left -= length;
    call.done += length;
    0
}

/// A piece of at most the largest class, which may be empty.
#[inline(always)]
fn piece(call: &mut Call, length: u64) {
    call.header.offset = call.done as u32;
    if length <= CLASSES[0] as u64 {
        write::<{ CLASSES[0] }>(call, length);
    } else if length <= CLASSES[1] as u64 {
        write::<{ CLASSES[1] }>(call, length);
    } else if length <= CLASSES[2] as u64 {
        write::<{ CLASSES[2] }>(call, length);
    } else if length <= CLASSES[3] as u64 {
        write::<{ CLASSES[3] }>(call, length);
    } else {
        write::<{ CLASSES[4] }>(call, length);
    }
}

#[inline(always)]
fn write<const N: usize>(call: &mut Call, length: u64) {
    let Some(mut entry) = RING.reserve_untyped::<Record<N>>(0) else {
        call.lost += length;
        return;
    };
    let record: *mut Record<N> = MaybeUninit::as_mut_ptr(&mut entry);
    // SAFETY: the reserved memory starts with room for a header.
    let header = unsafe { &raw mut (*record).header };
    // Nobody else knows the reservation yet.
    copy_words(header, &raw const call.header);
    // SAFETY: as above.
    let header = unsafe { &mut *header };
    header.position = call.header.position.wrapping_add(call.done);
    header.kind = DATA;
    // One less, of which the compiler knows nothing: the verifier then sees a comparison and an addition on one register,
    // and knows 1..=N behind them.
    let last = opaque(length.wrapping_sub(1));
    let mut copied = 0;
    if last < N as u64 {
        // SAFETY: the reserved memory has room for N bytes there.
        let bytes = unsafe { &raw mut (*record).bytes };
        // SAFETY: as above, and the length is 1..=N.
        let outcome =
            unsafe { bpf_probe_read_user(bytes.cast(), (last + 1) as u32, call.source as *const c_void) };
        if outcome == 0 {
            copied = last + 1;
        }
    }
    header.captured = copied as u32;
    if copied == length {
        call.captured += length;
    } else {
        header.kind = GAP;
        header.reason = reason::FAULT;
        header.length = length;
        call.faults += length;
    }
    entry.submit(wakeup_at(size_of::<Record<N>>()));
}

/// Tells of bytes that are not copied.
#[inline(always)]
fn gap(call: &mut Call, length: u64, reason: u8) {
    let Some(mut entry) = RING.reserve_untyped::<RecordHeader>(0) else {
        call.untold += length;
        return;
    };
    let header: *mut RecordHeader = MaybeUninit::as_mut_ptr(&mut entry);
    copy_words(header, &raw const call.header);
    // SAFETY: the reserved memory has room for a header.
    let header = unsafe { &mut *header };
    header.position = call.header.position.wrapping_add(call.done);
    header.offset = call.done as u32;
    header.length = length;
    header.captured = 0;
    header.kind = GAP;
    header.reason = reason;
    entry.submit(wakeup_at(size_of::<RecordHeader>()));
}

/// While there is something, user space looks at the ring every few milliseconds. It is woken before that when a record makes the
/// ring as full as the settings say: waking it for every record costs more than all the rest.
#[inline(always)]
fn wakeup_at(length: usize) -> u64 {
    // SAFETY: the map is a ring.
    let waiting =
        unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    let before = waiting.wrapping_sub(length as u64);
    let wake = u64::from(place!(wake));
    if waiting >= wake && before < wake { u64::from(BPF_RB_FORCE_WAKEUP) } else { wakeup() }
}

/// Reads memory of the process that runs this.
#[inline(always)]
pub(crate) fn read_user<T>(value: &mut T, address: u64) -> bool {
    // SAFETY: the helper checks the address and fails where nothing is mapped; all bit patterns are valid for the integers
    // that are read.
    unsafe {
        bpf_probe_read_user((&raw mut *value).cast(), size_of::<T>() as u32, address as *const c_void) == 0
    }
}

/// Sets the segments of a call, as many as are followed.
#[inline(always)]
pub(crate) fn set_segments(call: &mut Call, next: u64, count: u64) {
    call.next = next;
    call.has_more = u64::from(count > SEGMENTS);
    call.segments = if count > SEGMENTS { SEGMENTS } else { count };
    call.source = 0;
    call.left = 0;
}
