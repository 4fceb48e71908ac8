//! Jiffies to monotonic time.
//!
//! The programs stamp packets in jiffies, which cost nothing to read. A tiny program, run by `BPF_PROG_TEST_RUN`,
//! returns jiffies and monotonic time of one moment; two such pairs on edges of the jiffy give its length, and every
//! drain takes a fresh pair, so that nothing drifts.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
    programs::{ProgramError, SchedClassifier},
};
use weir_flow::Monotonic;

use crate::bpf;

/// Rates that kernels are built with (`CONFIG_HZ`).
const RATES: [u64; 7] = [100, 128, 250, 256, 300, 1000, 1024];

/// How long to look for the edge of a jiffy, which takes 10 ms at most on an idle machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Jiffies of the whole measurement. The longer, the less a delay between two calls matters.
const SPAN: u64 = 4;

/// Why the kernel's clock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The object lacks the program or its map.
    #[error("the kernel object has no clock program")]
    Missing,
    /// The program cannot be loaded.
    #[error("cannot load the clock program")]
    Load(#[from] ProgramError),
    /// The program cannot be run.
    #[error("cannot run the clock program")]
    Run(#[from] io::Error),
    /// Its answer cannot be read.
    #[error("cannot read the answer of the clock program")]
    Read(#[from] MapError),
    /// The count of jiffies stands still.
    #[error("jiffies did not advance within {} s", PATIENCE.as_secs())]
    Stopped,
}

/// Jiffies and monotonic time (ns) of the same moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    jiffies: u64,
    nanoseconds: u64,
}

/// Converts the kernel's time stamps.
pub(crate) struct Clock {
    program: OwnedFd,
    answer: Array<MapData, [u64; 2]>,
    /// Ticks per second.
    rate: u64,
    /// A moment at the edge of a jiffy.
    anchor: Moment,
}

impl Clock {
    /// Takes the clock program out of the object, loads it and measures the length of a jiffy (10 to 60 ms).
    pub(crate) fn calibrate(ebpf: &mut Ebpf) -> Result<Self, ClockError> {
        let answer = Array::try_from(ebpf.take_map("CLOCK").ok_or(ClockError::Missing)?)?;
        let program: &mut SchedClassifier =
            ebpf.program_mut("weir_clock").ok_or(ClockError::Missing)?.try_into()?;
        program.load()?;
        let program = program.fd()?.as_fd().try_clone_to_owned()?;
        let none = Moment { jiffies: 0, nanoseconds: 0 };
        let mut clock = Self { program, answer, rate: RATES[2], anchor: none };
        let first = clock.edge()?;
        let last = loop {
            let moment = clock.edge()?;
            if moment.jiffies - first.jiffies >= SPAN {
                break moment;
            }
        };
        let length = (last.nanoseconds - first.nanoseconds) / (last.jiffies - first.jiffies);
        clock.rate = nearest_rate(length);
        clock.anchor = last;
        Ok(clock)
    }

    /// Ticks per second (`CONFIG_HZ`).
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Jiffies and nanoseconds of the same moment.
    pub(crate) fn anchor(&self) -> (u64, u64) {
        (self.anchor.jiffies, self.anchor.nanoseconds)
    }

    /// Time of a stamp, with a resolution of one jiffy.
    pub(super) fn monotonic(&self, stamp: u32) -> Monotonic {
        // The low 32 bits: stamps are at most one drain old, and 32 bits last for weeks.
        #[expect(clippy::cast_possible_truncation, reason = "stamps have 32 bits")]
        let distance = stamp.wrapping_sub(self.anchor.jiffies as u32).cast_signed();
        let length = 1_000_000_000 / self.rate;
        Monotonic(self.anchor.nanoseconds.saturating_add_signed(i64::from(distance) * length.cast_signed()))
    }

    /// Moves the anchor to now, keeping it on an edge as well as the last one was.
    pub(super) fn refresh(&mut self) -> Result<(), ClockError> {
        let now = self.now()?;
        let length = 1_000_000_000 / self.rate;
        let expected = self.anchor.nanoseconds + (now.jiffies - self.anchor.jiffies) * length;
        // Jiffies tick on monotonic time, give or take the delay of an interrupt; real drift comes from a rate that
        // is not exactly 1/HZ, and shows as an expectation outside of the current jiffy.
        let nanoseconds = expected.clamp(now.nanoseconds.saturating_sub(length), now.nanoseconds);
        self.anchor = Moment { jiffies: now.jiffies, nanoseconds };
        Ok(())
    }

    /// The moment when jiffies change next.
    fn edge(&self) -> Result<Moment, ClockError> {
        let start = Instant::now();
        let first = self.now()?;
        loop {
            let moment = self.now()?;
            if moment.jiffies != first.jiffies {
                return Ok(moment);
            }
            if start.elapsed() > PATIENCE {
                return Err(ClockError::Stopped);
            }
        }
    }

    fn now(&self) -> Result<Moment, ClockError> {
        // TC programs want at least an Ethernet header to run on.
        let frame = [0; 14];
        bpf::run::test_run(self.program.as_fd(), &frame, 1)?;
        let [jiffies, nanoseconds] = self.answer.get(&0, 0)?;
        Ok(Moment { jiffies, nanoseconds })
    }
}

/// The rate whose jiffy is nearest to `length` nanoseconds.
fn nearest_rate(length: u64) -> u64 {
    RATES
        .into_iter()
        .min_by_key(|rate| (1_000_000_000 / rate).abs_diff(length))
        .expect("the list of rates is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_nearest_one() {
        for (length, rate) in [(9_990_000, 100), (4_001_000, 250), (3_300_000, 300), (1_010_000, 1000)] {
            assert_eq!(nearest_rate(length), rate, "{length} ns");
        }
    }
}
