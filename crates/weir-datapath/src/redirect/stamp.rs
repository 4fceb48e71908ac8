//! Time stamps of connections: jiffies, truncated.

use std::time::Duration;

use weir_common::redirect::RedirectConfig;

use crate::now;

/// Converts stamps, by one moment that is known on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    jiffies: u64,
    nanoseconds: u64,
    rate: u64,
}

impl Stamps {
    /// By the moment that is kept with the maps.
    pub(super) fn new(config: &RedirectConfig) -> Self {
        Self { jiffies: config.jiffies, nanoseconds: config.nanoseconds, rate: config.rate.max(1) }
    }

    /// The stamp of now.
    #[expect(clippy::cast_possible_truncation, reason = "stamps are truncated")]
    pub(super) fn now(&self) -> u32 {
        let passed = now::monotonic().0.saturating_sub(self.nanoseconds);
        let ticks = u128::from(passed) * u128::from(self.rate) / 1_000_000_000;
        (self.jiffies as u32).wrapping_add(ticks as u32)
    }

    /// Time from a stamp to `now`; zero if it is a little later.
    pub(super) fn since(&self, stamp: u32, now: u32) -> Duration {
        let ticks = now.wrapping_sub(stamp);
        // Half of all numbers are the past: weeks.
        if ticks > u32::MAX / 2 {
            return Duration::ZERO;
        }
        Duration::from_nanos(u64::from(ticks) * (1_000_000_000 / self.rate))
    }
}
