//! [`Clock`]: the time by which old history is removed. It is the wall clock, unless that jumps ahead.
//!
//! A wall clock may be years ahead for a while: before a machine has asked for the time, or by mistake. That must not cost
//! the history, so a jump is believed only after an hour in which the clock went on evenly. Nothing is lost by
//! waiting: some history is kept an hour longer. A clock that goes back is believed at once, since that removes less.

use weir_flow::Tick;

/// What the wall clock may gain on the monotonic one between two ticks without being suspected.
const LEAP_MS: i64 = 5 * 60 * 1_000;

/// How long a suspect clock has to go on evenly to be believed.
const PROBATION_MS: i64 = 60 * 60 * 1_000;

/// Tells the time by which history is removed.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The time by which history was last kept before, milliseconds since 1970.
    last_ms: Option<i64>,
    /// What to add to monotonic time, as it is believed.
    offset_ms: Option<i64>,
    /// What the wall clock claims instead, and since when, monotonic.
    claimed: Option<(i64, i64)>,
}

impl Clock {
    /// A clock that suspects times much later than this.
    pub(super) fn since(last_ms: Option<i64>) -> Self {
        Self { last_ms, ..Self::default() }
    }

    /// The time of a tick, milliseconds since 1970.
    pub(super) fn now_ms(&mut self, tick: &Tick) -> i64 {
        let ms = |nanoseconds: u64| i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
        let (wall_ms, monotonic_ms) = (ms(tick.wall.0), ms(tick.monotonic.0));
        let offset_ms = wall_ms - monotonic_ms;
        let first_ms = self.last_ms.map_or(offset_ms, |last_ms| last_ms - monotonic_ms);
        let believed_ms = *self.offset_ms.get_or_insert(first_ms);
        let is_even = |claimed_ms: i64| (offset_ms - claimed_ms).abs() <= LEAP_MS;
        let is_believed = offset_ms <= believed_ms.saturating_add(LEAP_MS)
            || match self.claimed {
                Some((claimed_ms, since_ms)) if is_even(claimed_ms) => {
                    monotonic_ms - since_ms >= PROBATION_MS
                }
                _ => {
                    self.claimed = Some((offset_ms, monotonic_ms));
                    false
                }
            };
        if !is_believed {
            return monotonic_ms + believed_ms;
        }
        (self.offset_ms, self.claimed) = (Some(offset_ms), None);
        wall_ms
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::{Monotonic, Wall};

    use super::*;

    const DAY: i64 = 24 * 60 * 60;
    /// Any moment, in seconds since 1970; the machine started 1,000 seconds before.
    const NOON: i64 = 1_800_000_000;

    /// What the clock says (in seconds after noon) when the machine has run for some seconds after noon, and the wall clock
    /// is ahead by so many.
    fn says(clock: &mut Clock, seconds: i64, ahead: i64) -> i64 {
        let ns = |seconds: i64| u64::try_from(seconds).unwrap() * 1_000_000_000;
        let tick = Tick { monotonic: Monotonic(ns(1_000 + seconds)), wall: Wall(ns(NOON + seconds + ahead)) };
        clock.now_ms(&tick) / 1_000 - NOON
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_after_an_even_hour() {
        let mut clock = Clock::since(None);
        assert_eq!(says(&mut clock, 0, 0), 0);
        assert_eq!(says(&mut clock, 60, 2), 62);
        assert_eq!(says(&mut clock, 70, 3_650 * DAY), 72);
        assert_eq!(says(&mut clock, 1_800, 3_650 * DAY), 1_802);
        // Another jump, another hour.
        assert_eq!(says(&mut clock, 2_000, 20 * DAY), 2_002);
        assert_eq!(says(&mut clock, 5_599, 20 * DAY), 5_601);
        assert_eq!(says(&mut clock, 5_600, 20 * DAY), 5_600 + 20 * DAY);
    }

    #[test]
    fn a_clock_that_goes_back_is_believed_at_once() {
        let mut clock = Clock::since(None);
        assert_eq!(says(&mut clock, 0, 3_650 * DAY), 3_650 * DAY);
        assert_eq!(says(&mut clock, 1, 0), 1);
        assert_eq!(says(&mut clock, 2, 3_650 * DAY), 2);
        assert_eq!(says(&mut clock, 3, 0), 3);
    }

    #[test]
    fn a_start_long_after_the_last_one_is_a_jump_too() {
        let mut clock = Clock::since(Some((NOON - 7 * DAY) * 1_000));
        assert_eq!(says(&mut clock, 0, 0), -7 * DAY);
        assert_eq!(says(&mut clock, 3_599, 0), 3_599 - 7 * DAY);
        assert_eq!(says(&mut clock, 3_600, 0), 3_600);
        // Shortly after, it is none.
        let mut clock = Clock::since(Some((NOON - 60) * 1_000));
        assert_eq!(says(&mut clock, 0, 0), 0);
    }
}
