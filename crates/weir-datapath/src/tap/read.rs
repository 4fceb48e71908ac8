//! Two rings as one sequence of events.
//!
//! Of one socket, the order is that of the kernel: its opening before its bytes, its closing after them, although they come
//! through different rings. A control record is handed over before the first bytes that are younger, or once all bytes are
//! through that were there when it was younger than a moment before the rings were looked at.

use std::{
    collections::VecDeque,
    io,
    ops::ControlFlow,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::atomic::{Ordering, fence},
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData};
use weir_common::tap::OpenedRecord;

use super::{
    error::TapError,
    event::Event,
    record::{bytes, control, opened},
    ring::Ring,
};
use crate::now;

/// How long the kernel may leave bytes in the ring before it is looked at, while it writes some now and then.
const TURN: Duration = Duration::from_millis(5);

/// How long it is slept at most while nothing comes: should the kernel and the reader miss each other.
const SLEEP: Duration = Duration::from_millis(100);

/// How often a record that is being written is looked at again before the next turn.
const PATIENCE: usize = 1000;

/// Most control records that wait here; the others wait in their ring. Each takes some 400 bytes.
const MOST_WAITING: usize = 16_384;

/// Bytes after which room is made in the ring of control records.
const TURN_BYTES: usize = 256 << 10;

/// The two rings.
pub(super) struct Reader {
    data: Ring,
    events: Ring,
    waiting: Waiting,
    /// Bytes at which the kernel wakes us.
    wake: usize,
    wakeups: OwnedFd,
    /// Tells the kernel that it is to wake us for the next record.
    asleep: Array<MapData, u32>,
    /// Whether nothing came for a while.
    is_idle: bool,
}

impl Reader {
    pub(super) fn new(data: Ring, events: Ring, asleep: Array<MapData, u32>, wake: u32) -> io::Result<Self> {
        // SAFETY: makes a descriptor.
        let wakeups = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if wakeups < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
        let wakeups = unsafe { OwnedFd::from_raw_fd(wakeups) };
        // Only when the kernel wakes us, not while anything is there: it would always be.
        let interest = libc::EPOLLIN | libc::EPOLLET;
        let mut event = libc::epoll_event { events: interest.cast_unsigned(), u64: 0 };
        for ring in [&data, &events] {
            let ring = ring.descriptor().as_raw_fd();
            // SAFETY: both descriptors are open, and the event outlives the call.
            let outcome =
                unsafe { libc::epoll_ctl(wakeups.as_raw_fd(), libc::EPOLL_CTL_ADD, ring, &raw mut event) };
            if outcome < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let (waiting, wake) = (VecDeque::new(), wake as usize);
        Ok(Self { data, events, waiting, wake, wakeups, asleep, is_idle: false })
    }

    /// Waits until there is something or a signal comes, at most as long as `timeout`, rounded up to milliseconds.
    ///
    /// What comes in quick succession is taken together, a turn later; where nothing came for a turn, the next record ends the
    /// wait at once, and until then hardly anything runs.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let start = Instant::now();
        if self.data.waiting() >= self.wake {
            return Ok(());
        }
        if !self.is_idle {
            let turn = timeout.min(TURN);
            if self.doze(turn)?.is_break() || self.is_any() {
                return Ok(());
            }
            self.is_idle = turn == TURN;
        }
        while self.is_idle {
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break;
            }
            self.asleep.set(0, 1, 0).map_err(io::Error::other)?;
            // What was written before the kernel knew of it has woken nobody.
            fence(Ordering::SeqCst);
            let is_over = !self.is_any() && self.doze(rest.min(SLEEP))?.is_break();
            self.asleep.set(0, 0, 0).map_err(io::Error::other)?;
            self.is_idle = !self.is_any();
            if is_over {
                break;
            }
        }
        Ok(())
    }

    fn is_any(&self) -> bool {
        self.data.waiting() + self.events.waiting() > 0 || !self.waiting.is_empty()
    }

    /// Sleeps until the kernel wakes us or the time is over; a signal breaks it off.
    fn doze(&self, timeout: Duration) -> io::Result<ControlFlow<()>> {
        let timeout = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event, which outlives the call.
        let outcome = unsafe { libc::epoll_wait(self.wakeups.as_raw_fd(), &raw mut event, 1, timeout) };
        if outcome >= 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(ControlFlow::Break(())) } else { Err(error) }
    }

    /// Takes in sockets that a walk has found.
    pub(super) fn found(&mut self, record: &OpenedRecord) {
        self.waiting.push_back((record.header.time_ns, Event::Opened(opened(record))));
    }

    /// Hands over what is there.
    pub(super) fn read(&mut self, visit: &mut dyn FnMut(&Event<'_>)) -> Result<usize, TapError> {
        // In this order: what happened before `moment` is in front of `until`, and the opening of everything in front of
        // `until` was told before `control_until`.
        let moment = now::monotonic().0;
        let Self { data, events, waiting, .. } = self;
        let until = data.produced();
        let control_until = events.produced();
        if !take_control(events, waiting, control_until)? {
            return Ok(0);
        }
        let mut count = 0;
        let mut turn = data.position();
        while let Some(record) = data.next(until) {
            let (time, event) = bytes(record)?;
            count += hand_over(events, waiting, (time, control_until), visit)?;
            visit(&event);
            count += 1;
            if data.position().wrapping_sub(turn) >= TURN_BYTES {
                turn = data.position();
                // What takes long here must not make openings and closings be lost.
                take_control(events, waiting, events.produced())?;
            }
        }
        if data.has_reached(until) {
            count += hand_over(events, waiting, (moment, control_until), visit)?;
        }
        data.release();
        Ok(count)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.data.waiting() == 0 && self.events.waiting() == 0
    }
}

/// Control records that wait for bytes in front of them, by time.
type Waiting = VecDeque<(u64, Event<'static>)>;

/// Hands over control records up to a time, those too for which there was no room among the waiting. Returns how many.
fn hand_over(
    events: &mut Ring,
    waiting: &mut Waiting,
    (time, until): (u64, usize),
    visit: &mut dyn FnMut(&Event<'_>),
) -> Result<usize, TapError> {
    let mut count = 0;
    loop {
        while let Some((_, control)) = waiting.pop_front_if(|(earlier, _)| *earlier <= time) {
            visit(&control);
            count += 1;
        }
        if !waiting.is_empty() || events.has_reached(until) || !take_control(events, waiting, until)? {
            return Ok(count);
        }
    }
}

/// Takes control records, as many as may wait; false if one is being written.
fn take_control(events: &mut Ring, waiting: &mut Waiting, until: usize) -> Result<bool, TapError> {
    let mut patience = PATIENCE;
    let known = waiting.len();
    while !events.has_reached(until) && waiting.len() < MOST_WAITING {
        if let Some(record) = events.next(until) {
            waiting.push_back(control(record)?);
        } else if patience == 0 {
            break;
        } else if !events.has_reached(until) {
            patience -= 1;
            std::hint::spin_loop();
        }
    }
    events.release();
    merge(waiting, known);
    Ok(patience > 0)
}

/// Puts in order what came behind the first `known`, which are in order. It nearly is: each CPU writes by its own clock
/// readings.
fn merge<T>(waiting: &mut VecDeque<(u64, T)>, known: usize) {
    let all = waiting.make_contiguous();
    let (before, new) = all.split_at(known);
    let Some(first) = new.iter().map(|(time, _)| *time).min() else { return };
    let place = before.partition_point(|(time, _)| *time <= first);
    all[place..].sort_by_key(|(time, _)| *time);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn late_records_come_before_later_ones(
            mut known in prop::collection::vec(0_u64..20, 0..9),
            new in prop::collection::vec(0_u64..20, 0..9),
        ) {
            known.sort_unstable();
            let count = known.len();
            let mut waiting: VecDeque<(u64, usize)> =
                known.into_iter().chain(new).enumerate().map(|(place, time)| (time, place)).collect();
            let mut expected: Vec<(u64, usize)> = waiting.iter().copied().collect();
            // Of the same moment, those that came first.
            expected.sort_unstable();
            merge(&mut waiting, count);
            prop_assert_eq!(Vec::from(waiting), expected);
        }
    }
}
