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
    deadline: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Patience {
    /// Ends at this moment.
    pub fn end_at(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.changed.notify_all();
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits this long, or until patience is over; says whether it is not.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return false;
            }
            let until = deadline.map_or(end, |deadline| deadline.min(end));
            if now >= end {
                return true;
            }
            let waited = self.changed.wait_timeout(deadline, until.saturating_duration_since(now));
            deadline = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
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
    fn a_deadline_ends_a_wait_that_has_begun() {
        let patience = std::sync::Arc::new(Patience::default());
        assert!(patience.wait(Duration::from_millis(1)));
        let waiting = std::sync::Arc::clone(&patience);
        let thread = std::thread::spawn(move || waiting.wait(Duration::from_hours(1)));
        patience.end_at(Instant::now());
        assert!(!thread.join().unwrap());
        assert!(patience.is_over());
    }
}
