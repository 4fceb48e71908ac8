//! [`Index`]: what is known of sockets by cookie, and what records were told of it. No I/O.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use weir_common::quality::QualityRecord;
use weir_flow::{Direction, Endpoint, Point, Record};

/// Most open sockets that are kept. About 7 MiB.
const MOST_OPEN: usize = 100_000;
/// Most closed sockets that are kept, because records of theirs are still to come. The oldest make room.
const MOST_CLOSED: usize = 65_536;
/// Most places at which one connection may be seen.
const MOST_PLACES: usize = 32;

/// Sockets by cookie.
#[derive(Debug, Default)]
pub(super) struct Index {
    sockets: HashMap<u64, Socket>,
    /// Cookies of closed sockets, those closed first in front.
    closed: VecDeque<u64>,
    /// Number of this reading.
    reading: u32,
    left_out: u64,
}

#[derive(Debug)]
struct Socket {
    srtt_eighths_us: u32,
    minimum_rtt_us: u32,
    retransmits: u32,
    /// When it was last found open.
    seen: u32,
    is_closed: bool,
    /// Retransmits that records have told, where they have told of any.
    told: Vec<(Place, u32)>,
}

/// Where what a socket sends was seen. Each place has records of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    netns: Option<Arc<str>>,
    ifindex: u32,
    direction: Direction,
}

impl Index {
    /// Begins a reading.
    pub(super) fn begin(&mut self) {
        self.reading = self.reading.wrapping_add(1);
    }

    /// Takes in an open socket.
    pub(super) fn is_open(&mut self, record: &QualityRecord) {
        let reading = self.reading;
        if let Some(socket) = self.sockets.get_mut(&record.cookie) {
            socket.learn(record);
            socket.seen = reading;
            if std::mem::take(&mut socket.is_closed) {
                // A socket can connect again.
                self.closed.retain(|cookie| *cookie != record.cookie);
            }
        } else if self.sockets.len() - self.closed.len() < MOST_OPEN {
            self.sockets.insert(record.cookie, Socket::new(record, reading));
        } else {
            self.left_out += 1;
        }
    }

    /// Takes in what a socket knew when it was closed.
    pub(super) fn is_closed(&mut self, record: &QualityRecord) {
        let reading = self.reading;
        let socket = self.sockets.entry(record.cookie).or_insert_with(|| Socket::new(record, reading));
        socket.learn(record);
        if !std::mem::replace(&mut socket.is_closed, true) {
            self.closed.push_back(record.cookie);
        }
    }

    /// Ends a reading: what was not found is closed, though its end was not told.
    pub(super) fn end(&mut self) {
        for (cookie, socket) in &mut self.sockets {
            if !socket.is_closed && socket.seen != self.reading {
                socket.is_closed = true;
                self.closed.push_back(*cookie);
            }
        }
        let surplus = self.closed.len().saturating_sub(MOST_CLOSED);
        for cookie in self.closed.drain(..surplus) {
            self.sockets.remove(&cookie);
        }
    }

    /// Sockets for which there was no room, as often as they were found.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds what is known to a record.
    pub(super) fn add_to(&mut self, record: &mut Record) {
        let (forward, reverse) = (record.point.direction, record.reverse_direction());
        let ends = [(&record.source, forward), (&record.destination, reverse)];
        let quality = &mut record.quality;
        let counters = [&mut quality.retransmits, &mut quality.reverse_retransmits];
        for ((end, direction), counter) in ends.into_iter().zip(counters) {
            let Some(socket) = self.socket(end) else { continue };
            if quality.rtt.is_none() {
                quality.rtt = socket.rtt();
                quality.minimum_rtt = socket.minimum_rtt();
            }
            *counter = socket.tell(&record.point, direction);
        }
    }

    fn socket(&mut self, end: &Endpoint) -> Option<&mut Socket> {
        if end.owner.cookie == 0 { None } else { self.sockets.get_mut(&end.owner.cookie) }
    }
}

impl Socket {
    fn new(record: &QualityRecord, reading: u32) -> Self {
        let mut socket = Self {
            srtt_eighths_us: 0,
            minimum_rtt_us: u32::MAX,
            retransmits: 0,
            seen: reading,
            is_closed: false,
            told: Vec::new(),
        };
        socket.learn(record);
        socket
    }

    fn learn(&mut self, record: &QualityRecord) {
        if record.retransmits < self.retransmits {
            // It connected again, which sets its counter back.
            self.told.clear();
        }
        self.retransmits = record.retransmits;
        self.srtt_eighths_us = record.srtt_eighths_us;
        self.minimum_rtt_us = record.minimum_rtt_us;
    }

    fn rtt(&self) -> Option<Duration> {
        (self.srtt_eighths_us > 0).then(|| Duration::from_nanos(u64::from(self.srtt_eighths_us) * 125))
    }

    fn minimum_rtt(&self) -> Option<Duration> {
        let is_known = self.srtt_eighths_us > 0 && self.minimum_rtt_us != u32::MAX;
        is_known.then(|| Duration::from_micros(self.minimum_rtt_us.into()))
    }

    /// Retransmits that no record of this place has told. `None` where there are too many places to remember.
    fn tell(&mut self, point: &Point, direction: Direction) -> Option<u32> {
        if self.retransmits == 0 {
            return Some(0);
        }
        let is_it = |place: &Place| {
            (place.ifindex, place.direction, &place.netns) == (point.ifindex, direction, &point.netns)
        };
        if let Some((_, told)) = self.told.iter_mut().find(|(place, _)| is_it(place)) {
            let news = self.retransmits - *told;
            *told = self.retransmits;
            return Some(news);
        }
        if self.told.len() >= MOST_PLACES {
            return None;
        }
        let place = Place { netns: point.netns.clone(), ifindex: point.ifindex, direction };
        self.told.push((place, self.retransmits));
        Some(self.retransmits)
    }
}

#[cfg(test)]
mod tests;
