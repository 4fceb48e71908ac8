//! [`Lookups`]: queries that wait for their response, and those that had it a moment ago.
//!
//! A lookup is known by both ends, the number of the message and the question. It is kept for five seconds after its
//! query was sent, or sent again, also when it was answered, because its messages still pass other interfaces.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use hashbrown::{HashMap, hash_map::Entry};
use weir_flow::{Monotonic, Question, Role};

use super::talks::Place;

/// Time in which a response is expected. Resolvers ask again after as long, or sooner.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Most lookups at a time. About 10 MiB.
pub(super) const MOST_LOOKUPS: usize = 32_768;

/// Interfaces that are remembered of each. A query that passes more of them counts as sent again.
const MOST_PLACES: usize = 8;

/// By what a response finds its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) protocol: u8,
    pub(super) id: u16,
}

/// A lookup.
#[derive(Debug)]
struct Pending {
    question: Question,
    role: Role,
    asked: Monotonic,
    /// When the query was sent last.
    sent: Monotonic,
    /// Flows that it was seen in since: one at each interface.
    places: Vec<Place>,
    /// How long the response took, once it is there.
    duration: Option<Duration>,
    /// Tells it from an older lookup with the same key.
    serial: u64,
}

/// What a response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) question: Question,
    /// Role of the interface where the query was seen first.
    pub(super) role: Role,
    pub(super) duration: Duration,
    /// Whether it is the first response, at the first interface.
    pub(super) is_first: bool,
}

/// A lookup without a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) question: Question,
    pub(super) role: Role,
    /// Flows that the query was seen in.
    pub(super) places: Vec<Place>,
}

/// There was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// All lookups.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pending: HashMap<Key, Pending>,
    /// Keys and serials by when their time is over at the earliest.
    deadlines: VecDeque<(Monotonic, Key, u64)>,
    serial: u64,
}

impl Lookups {
    /// Lookups that are kept.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Takes in a query at an interface. Gives back a lookup whose place it takes: another question with the same number.
    pub(super) fn query(
        &mut self,
        key: Key,
        question: Question,
        (place, role): (Place, Role),
        time: Monotonic,
    ) -> Result<Option<Unanswered>, NoRoom> {
        if let Some(pending) = self.pending.get_mut(&key)
            && pending.question == question
            && pending.duration.is_none()
        {
            if pending.places.contains(&place) || pending.places.len() >= MOST_PLACES {
                // Sent again.
                pending.places.clear();
                pending.sent = time;
            }
            pending.places.push(place);
            return Ok(None);
        }
        if self.deadlines.len() >= MOST_LOOKUPS {
            return Err(NoRoom);
        }
        self.serial += 1;
        self.deadlines.push_back((after(time), key, self.serial));
        let places = vec![place];
        let pending =
            Pending { question, role, asked: time, sent: time, places, duration: None, serial: self.serial };
        let replaced = self.pending.insert(key, pending);
        Ok(replaced.and_then(Pending::unanswered))
    }

    /// Finds the lookup that a response answers, if it was seen. `question` is what the response says it answers; some
    /// that refuse leave it out.
    pub(super) fn response(
        &mut self,
        key: &Key,
        question: Option<&Question>,
        time: Monotonic,
    ) -> Option<Answered> {
        let pending = self.pending.get_mut(key)?;
        if question.is_some_and(|question| *question != pending.question) {
            return None;
        }
        let is_first = pending.duration.is_none();
        let duration = *pending.duration.get_or_insert(time - pending.asked);
        Some(Answered { question: pending.question.clone(), role: pending.role, duration, is_first })
    }

    /// Forgets lookups whose time is over; gives back those that were not answered.
    pub(super) fn expire(&mut self, now: Monotonic) -> impl Iterator<Item = Unanswered> {
        std::iter::from_fn(move || {
            loop {
                let (deadline, key, serial) = *self.deadlines.front()?;
                if deadline > now {
                    return None;
                }
                self.deadlines.pop_front();
                let Entry::Occupied(entry) = self.pending.entry(key) else { continue };
                if entry.get().serial != serial {
                    continue;
                }
                let deadline = after(entry.get().sent);
                if deadline > now {
                    self.deadlines.push_back((deadline, key, serial));
                } else if let Some(unanswered) = entry.remove().unanswered() {
                    return Some(unanswered);
                }
            }
        })
    }
}

impl Pending {
    fn unanswered(self) -> Option<Unanswered> {
        let Self { question, role, places, duration, .. } = self;
        duration.is_none().then_some(Unanswered { question, role, places })
    }
}

/// When the time of a query is over.
fn after(sent: Monotonic) -> Monotonic {
    Monotonic(sent.0.saturating_add(u64::try_from(PATIENCE.as_nanos()).expect("it is five seconds")))
}
