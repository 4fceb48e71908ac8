//! [`Patience`]: how long a worker may go on trying.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Endless until somebody sets a deadline.
#[derive(Debug, Default)]
pub struct Patience {
    end: Mutex<End>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct End {
    deadline: Option<Instant>,
    /// Whether a wait ended because of it.
    is_noticed: bool,
}

impl Patience {
    /// Ends at this moment.
    pub fn end_at(&self, deadline: Instant) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).deadline = Some(deadline);
        self.changed.notify_all();
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        let deadline = self.end.lock().unwrap_or_else(PoisonError::into_inner).deadline;
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits this long, or until patience is over. The first wait at which there is a deadline ends at once.
    pub(super) fn wait(&self, time: Duration) -> Waited {
        let until = Instant::now() + time;
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let deadline = end.deadline;
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Waited::UntilItWasOver;
            }
            if deadline.is_some() && !end.is_noticed {
                end.is_noticed = true;
                return Waited::UntilTheEndBegan;
            }
            if now >= until {
                return Waited::AllOfIt;
            }
            let first = deadline.map_or(until, |deadline| deadline.min(until));
            let waited = self.changed.wait_timeout(end, first.saturating_duration_since(now));
            end = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It took its time.
    AllOfIt,
    /// Somebody set a deadline, which is still to come.
    UntilTheEndBegan,
    /// Patience is over.
    UntilItWasOver,
}

/// Growing times between attempts, so that a peer that comes back is not met by everybody at once.
#[derive(Debug)]
pub struct BackOff {
    next: Duration,
    attempts: u64,
    seed: RandomState,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

impl Default for BackOff {
    fn default() -> Self {
        Self { next: FIRST, attempts: 0, seed: RandomState::new() }
    }
}

impl BackOff {
    /// Time to wait now: twice that of the last time, up to half a minute, less a random part of up to a half.
    pub fn time(&mut self) -> Duration {
        let time = self.next;
        self.next = (self.next * 2).min(LONGEST);
        self.attempts += 1;
        let part = u32::try_from(self.seed.hash_one(self.attempts) % 512).unwrap_or_default();
        time.saturating_sub(time * part / 1024)
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_ever_more_rarely_and_never_all_at_once() {
        let mut back_off = BackOff::default();
        let times: Vec<Duration> = (0..12).map(|_| back_off.time()).collect();
        assert!(times[0] <= FIRST && times[0] >= FIRST / 2);
        assert!(times[11] <= LONGEST && times[11] >= LONGEST / 2);
        back_off.reset();
        assert!(back_off.time() <= FIRST);
    }

    #[test]
    fn a_wait_ends_when_a_deadline_is_set_and_when_it_has_come() {
        const LONG: Duration = Duration::from_hours(1);
        for (left, expected) in [(LONG, Waited::UntilTheEndBegan), (Duration::ZERO, Waited::UntilItWasOver)] {
            let patience = std::sync::Arc::new(Patience::default());
            assert_eq!(patience.wait(Duration::from_millis(1)), Waited::AllOfIt);
            let waiting = std::sync::Arc::clone(&patience);
            let thread = std::thread::spawn(move || waiting.wait(LONG));
            patience.end_at(Instant::now() + left);
            assert_eq!(thread.join().unwrap(), expected);
            assert_eq!(patience.is_over(), left.is_zero());
        }
    }

    #[test]
    fn a_deadline_is_noticed_once_and_bounds_every_wait() {
        let patience = Patience::default();
        patience.end_at(Instant::now() + Duration::from_hours(1));
        assert_eq!(patience.wait(Duration::from_hours(1)), Waited::UntilTheEndBegan);
        assert_eq!(patience.wait(Duration::from_millis(1)), Waited::AllOfIt);
        patience.end_at(Instant::now());
        assert_eq!(patience.wait(Duration::from_hours(1)), Waited::UntilItWasOver);
    }
}
