//! A socket has moved bytes: is it let through, where on its stream were they, and what becomes of them.

use weir_common::tap::{
    DATA, Entry, HEADER_BYTES, REASONS, RECEIVED, RULES, SENT, Side, base, payload, reason,
};

use crate::{
    assembly::{add, copy_words, fetch_add, zero},
    copy::{Call, weir_tap_copy},
    judge::{
        ANY_ENDS, NAMELESS, in_force, is_stale, judge, weir_tap_caller, weir_tap_describe, weir_tap_judge,
    },
    maps::{BUDGETS, CALLS, RULE_SIDES},
    peer::{take_note, weir_tap_peer},
    places::{current_task, place},
    socket::{AF_INET, AF_INET6, AF_UNIX, MPTCP, Socket, TCP, ends, identity, is_of_datagrams, remote_end},
    tell::{count, now, opened},
};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Looks at bytes that a socket has moved. `slot` is that of the program; `behind` are bytes that the same call moved after
/// these.
#[inline(always)]
pub(crate) fn moved<S: Socket>(
    slot: u32,
    socket: S,
    way: u8,
    amount: u32,
    is_discarded: bool,
    message: u64,
    behind: u32,
) {
    let Some((control, set)) = in_force() else { return };
    let family: u16 = socket.field(place!(sock_family));
    let protocol: u16 = if family == AF_UNIX { 0 } else { socket.field(place!(sock_protocol)) };
    let is_wanted = match family {
        AF_INET | AF_INET6 => protocol == TCP || protocol == MPTCP || is_of_datagrams(protocol),
        AF_UNIX => place!(unix) != 0,
        _ => false,
    };
    // The end of a stream looks like an empty datagram.
    if !is_wanted || amount == 0 && !is_of_datagrams(protocol) {
        return;
    }
    let Some(call) = CALLS.get_ptr_mut(slot) else { return };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    let entry = socket.entry(true);
    if entry.is_null() {
        count(|counts| &raw mut counts.unfollowed);
        count(|counts| &raw mut counts.rejected);
        return;
    }
    // SAFETY: the kernel keeps it as long as the socket, or as long as the program runs.
    let entry = unsafe { &mut *entry };
    weir_tap_caller(slot.into(), set.commands.into(), set.cgroups.into());
    call.header.has_peer = 0;
    call.header.peer_port = 0;
    // Of sockets that have no other end, rules about ends judge each datagram.
    let mut beside = 0;
    if is_of_datagrams(protocol) {
        let remote = remote_end(socket, family);
        if entry.remote != remote {
            // It was connected anew: another verdict, and told with its new end.
            entry.remote = remote;
            entry.generation = 0;
            entry.told = 0;
        }
        if remote == 0 && set.ends != 0 {
            beside = ANY_ENDS;
        }
        if remote == 0 && way == RECEIVED && place!(ended) == 0 {
            take_note(socket, call);
        }
    }
    if is_stale(entry, control, &call.caller) {
        ends(socket, family, protocol, &mut call.ends);
        judge(slot, entry, control, set, current_task(), &call.caller, beside);
    }
    let side = usize::from(way & 1);
    let mut verdict = entry.verdict[side];
    if beside != 0 && verdict != 0 {
        // Nothing of this verdict is kept: other threads use the socket as well.
        ends(socket, family, protocol, &mut call.ends);
        call.message = message;
        let is_known = !is_of_kernel(socket) && weir_tap_peer(slot.into(), way.into()) != 0;
        let role = u64::from(entry.role) | if is_known { 0 } else { NAMELESS };
        verdict = (weir_tap_judge(slot.into(), current_task(), role) >> (8 * u64::from(way & 1))) as u8;
    }
    let position = position(entry, socket, protocol, way, amount, behind);
    if verdict == 0 {
        count(|counts| &raw mut counts.rejected);
        add(&raw mut entry.sides[side].rejected, u64::from(amount));
        return;
    }
    count(|counts| &raw mut counts.accepted);
    copy_words(&raw mut call.rule, &raw const set.rules[usize::from(verdict - 1) & (RULES - 1)]);
    let cookie = identity(entry, socket);
    if entry.told == 0 {
        ends(socket, family, protocol, &mut call.ends);
        weir_tap_describe(slot.into());
        opened(entry, cookie, call.rule.id, &call.caller, &call.ends);
    }
    begin(call, way, amount, cookie, position, message);
    if entry.told == 0 {
        // There was no room to tell of it, and nobody can do anything with bytes of a socket that he does not know.
        call.lost = call.amount;
    } else {
        call.obstacle = if is_discarded {
            u64::from(reason::TRUNCATED) + 1
        } else if is_of_kernel(socket) {
            u64::from(reason::KERNEL) + 1
        } else {
            0
        };
        call.protocol = protocol.into();
        call.used = entry.sides[0].captured.wrapping_add(entry.sides[1].captured);
        call.speaker = entry.speaker.into();
        call.spoken = entry.spoken;
        weir_tap_allow(slot.into(), way.into());
        entry.speaker = call.speaker as u8;
        entry.spoken = call.spoken;
        weir_tap_copy(slot.into(), way.into());
    }
    account_to(&mut entry.sides[side], call);
    if let Some(sums) = RULE_SIDES.get_ptr_mut(u32::from(call.rule.id) * 2 + side as u32) {
        // SAFETY: a valid element; it is added to by atomic instructions alone.
        account_to(unsafe { &mut *sums }, call);
    }
}

/// Whether the kernel uses the socket by itself: it may do so within a system call that is about something else.
#[inline(always)]
fn is_of_kernel<S: Socket>(socket: S) -> bool {
    let byte: u8 = socket.field(place!(sock_kernel));
    u32::from(byte) & place!(sock_kernel_mask) != 0
}

/// Position of the first byte of the operation.
#[inline(always)]
fn position<S: Socket>(
    entry: &mut Entry,
    socket: S,
    protocol: u16,
    way: u8,
    amount: u32,
    behind: u32,
) -> u64 {
    let side = usize::from(way & 1);
    if protocol != TCP {
        // Of what is rejected no position is told.
        return fetch_add(&raw mut entry.positions[side], u64::from(amount));
    }
    if entry.base == base::UNKNOWN
        && let Some(sequences) = socket.sequences()
    {
        // The first that is seen of it: this operation is where its positions begin.
        entry.bases = sequences.now;
        entry.base_totals = sequences.totals;
        entry.bases[side] = entry.bases[side].wrapping_sub(amount).wrapping_sub(behind);
        entry.base_totals[side] = entry.base_totals[side].wrapping_sub(u64::from(amount) + u64::from(behind));
        entry.base = base::JOINED;
    }
    let Some(end) = socket.sequence(way) else { return 0 };
    let end = end.wrapping_sub(behind);
    let mut low = end.wrapping_sub(entry.bases[side]);
    if entry.positions[side] == 0 {
        // A call that was under way when the base was taken had moved some of this already.
        let earlier = amount.wrapping_sub(low).cast_signed();
        if earlier > 0 {
            entry.bases[side] = entry.bases[side].wrapping_sub(earlier.cast_unsigned());
            entry.base_totals[side] =
                entry.base_totals[side].wrapping_sub(u64::from(earlier.cast_unsigned()));
            low = amount;
        }
    }
    // Sequence numbers have 32 bits: the nearest position to the last one that has these.
    let last = entry.positions[side];
    let step = low.wrapping_sub(last as u32).cast_signed();
    let end = last.wrapping_add_signed(i64::from(step));
    entry.positions[side] = end;
    end.wrapping_sub(u64::from(amount))
}

#[inline(always)]
fn begin(call: &mut Call, way: u8, amount: u32, cookie: u64, position: u64, message: u64) {
    let header = &mut call.header;
    header.time_ns = now();
    header.socket = cookie;
    header.position = position;
    header.length = 0;
    header.pid = call.caller.pid;
    header.tid = call.caller.tid;
    header.operation = amount;
    header.offset = 0;
    header.captured = 0;
    header.kind = DATA;
    header.way = way;
    header.rule = call.rule.id;
    header.reason = 0;
    header.reserved = 0;
    call.amount = amount.into();
    let zero = zero();
    call.done = zero;
    call.captured = zero;
    call.lost = zero;
    call.faults = zero;
    call.untold = zero;
    call.gap = zero;
    call.gap_reason = zero;
    call.segments = zero;
    call.left = zero;
    call.name = zero;
    call.message = message;
    call.has_more = zero;
    call.is_broken = zero;
}

/// How many of the bytes the rule lets be copied, and why not more.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_allow(slot: u64, way: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    let rule = call.rule;
    call.wanted = call.amount;
    call.beyond = reason::LIMIT.into();
    if rule.payload == payload::NONE {
        allow(call, 0, reason::PAYLOAD);
    }
    if rule.payload == payload::HEADERS {
        if call.speaker != way + 1 {
            call.speaker = way + 1;
            call.spoken = 0;
        }
        allow(call, u64::from(HEADER_BYTES).saturating_sub(call.spoken), reason::PAYLOAD);
        call.spoken += call.amount;
    }
    allow(call, rule.call.into(), reason::LIMIT);
    allow(call, rule.connection.saturating_sub(call.used), reason::LIMIT);
    if rule.per_second != u64::MAX
        && let Some(budget) = BUDGETS.get_ptr_mut(u32::from(rule.id))
    {
        // SAFETY: a valid element.
        let budget = unsafe { &mut *budget };
        let second = call.header.time_ns / SECOND;
        if budget.second != second {
            budget.second = second;
            budget.used = 0;
        }
        allow(call, rule.per_second.saturating_sub(budget.used), reason::BUDGET);
        add(&raw mut budget.used, call.wanted);
    }
    0
}

#[inline(always)]
fn allow(call: &mut Call, bytes: u64, why: u8) {
    if bytes < call.wanted {
        call.wanted = bytes;
        call.beyond = why.into();
    }
}

/// Puts the call into a ledger.
#[inline(always)]
fn account_to(side: &mut Side, call: &Call) {
    add(&raw mut side.seen, call.amount);
    add(&raw mut side.captured, call.captured);
    if call.lost | call.untold | call.faults | call.gap != 0 {
        add(&raw mut side.lost, call.lost);
        add(&raw mut side.untold, call.untold);
        add(&raw mut side.gaps[usize::from(reason::FAULT)], call.faults);
        let why = call.gap_reason as usize;
        if why < REASONS {
            add(&raw mut side.gaps[why], call.gap);
        }
    }
}

const _: () = assert!(SENT == 0 && RECEIVED == 1);
