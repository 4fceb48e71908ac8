//! Openings, ends and closings, into a ring of their own.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query},
};
use weir_common::tap::{
    CLOSED, Caller, ClosedRecord, ControlHeader, Counts, Ends, Entry, FINISHED, OPENED, OpenedRecord, base,
};

use crate::{
    assembly::{add, fetch_add},
    maps::{ASLEEP, COUNTS, EVENTS},
    socket::{MPTCP, TCP},
};

/// Counts of this CPU.
#[inline(always)]
pub(crate) fn count(choose: impl FnOnce(&mut Counts) -> *mut u64) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: a valid element.
        add(choose(unsafe { &mut *counts }), 1);
    }
}

/// The flag for a record that was reserved just now: whether it wakes user space. That looks once more after it has said that it
/// sleeps, so one of both sees the other; should each be too early by the time that memory takes, the record is seen a little later,
/// because nobody sleeps for long.
#[inline(always)]
pub(crate) fn wakeup() -> u64 {
    let Some(asleep) = ASLEEP.get_ptr_mut(0) else { return u64::from(BPF_RB_NO_WAKEUP) };
    // SAFETY: a valid element; it is 0 or 1, whoever writes it.
    if unsafe { asleep.read_volatile() } == 0 {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    // Once is enough.
    // SAFETY: as above.
    unsafe { asleep.write_volatile(0) };
    u64::from(BPF_RB_FORCE_WAKEUP)
}

/// The monotonic clock.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether the ring has room for an opening, or for the end of a side. Its last quarter is for closings: what was told to be
/// open is to be told to be closed.
#[inline(always)]
fn has_room() -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map is a ring.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    // SAFETY: as above.
    let size = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_RING_SIZE)) };
    waiting < size / 4 * 3
}

/// Tells that a rule lets a socket through, once.
#[inline(always)]
pub(crate) fn opened(entry: &mut Entry, socket: u64, rule: u8, caller: &Caller, ends: &Ends) {
    if entry.told != 0 || fetch_add(&raw mut entry.told, 1) != 0 {
        return;
    }
    let place = if has_room() { EVENTS.reserve_untyped::<OpenedRecord>(0) } else { None };
    let Some(mut place) = place else {
        // The next call tries again.
        entry.told = 0;
        count(|counts| &raw mut counts.untold);
        return;
    };
    let record: *mut OpenedRecord = MaybeUninit::as_mut_ptr(&mut place);
    // SAFETY: the reserved memory has room for the record, and nobody else knows it yet.
    unsafe { record.write(opened_record(entry, socket, rule, caller, ends)) };
    place.submit(wakeup());
}

/// What is told of an opening.
#[inline(always)]
pub(crate) fn opened_record(
    entry: &Entry,
    socket: u64,
    rule: u8,
    caller: &Caller,
    ends: &Ends,
) -> OpenedRecord {
    // Also of a connection that speaks before the walk over those that are open comes to it.
    let is_existing = (ends.protocol == TCP || ends.protocol == MPTCP) && entry.base != base::BEGINNING;
    OpenedRecord {
        header: ControlHeader { time_ns: now(), socket, kind: OPENED, detail: 0 },
        caller: *caller,
        ends: *ends,
        rule,
        role: entry.role,
        is_existing: is_existing.into(),
        is_late: (entry.sides[0].seen | entry.sides[1].seen != 0).into(),
        reserved: [0; 4],
    }
}

/// Tells that a side ended, once.
#[inline(always)]
pub(crate) fn finished(entry: &mut Entry, socket: u64, way: u8) {
    let way = usize::from(way & 1);
    if entry.told == 0 || entry.finished[way] != 0 {
        return;
    }
    entry.finished[way] = 1;
    let place = if has_room() { EVENTS.reserve_untyped::<ControlHeader>(0) } else { None };
    let Some(mut place) = place else {
        count(|counts| &raw mut counts.untold);
        return;
    };
    let record: *mut ControlHeader = MaybeUninit::as_mut_ptr(&mut place);
    // SAFETY: as above.
    unsafe { record.write(ControlHeader { time_ns: now(), socket, kind: FINISHED, detail: way as u32 }) };
    place.submit(wakeup());
}

/// Tells that a connection is gone, with its ledger.
#[inline(always)]
pub(crate) fn closed(entry: &mut Entry, socket: u64) {
    if entry.told == 0 {
        // The verdict of an earlier connection of the socket says nothing.
        let is_meant = entry.generation != 0 && entry.verdict[0] | entry.verdict[1] != 0;
        if is_meant || entry.sides[0].seen | entry.sides[1].seen != 0 {
            count(|counts| &raw mut counts.unopened);
        }
        return;
    }
    let Some(mut place) = EVENTS.reserve_untyped::<ClosedRecord>(0) else {
        count(|counts| &raw mut counts.untold);
        count(|counts| &raw mut counts.unclosed);
        return;
    };
    let record: *mut ClosedRecord = MaybeUninit::as_mut_ptr(&mut place);
    let has_totals = u32::from(entry.base != base::UNKNOWN && entry.has_totals != 0);
    let header = ControlHeader { time_ns: now(), socket, kind: CLOSED, detail: has_totals };
    // SAFETY: as above. Member by member, because the record does not fit the stack.
    let record = unsafe { &mut *record };
    record.header = header;
    record.sides = entry.sides;
    record.totals = entry.totals;
    place.submit(wakeup());
}
