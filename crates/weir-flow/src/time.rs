//! The two clocks: monotonic time orders and measures, wall time is for people.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds of the kernel's monotonic clock (`CLOCK_MONOTONIC`); in `weir replay`, of the capture's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

/// Nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

/// One moment on both clocks. Every drain carries one, and aggregation takes it as an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Monotonic time.
    pub monotonic: Monotonic,
    /// Wall time.
    pub wall: Wall,
}

impl Sub for Monotonic {
    type Output = Duration;

    /// Time from `earlier` to `self`; zero where `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Tick {
    /// Wall time of a monotonic moment, by the offset between the clocks at this tick.
    #[must_use]
    pub fn wall_of(&self, moment: Monotonic) -> Wall {
        Wall(self.wall.0.saturating_add(moment.0).saturating_sub(self.monotonic.0))
    }
}

impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}
