//! Reading what was counted: flip the generation, wait until nobody writes the old one, read and clear it.
//!
//! The reader belongs on a thread of its own. Each drain proves itself: for every observation point, what was seen
//! equals the flows that were read plus what the ledger names.

use std::{io, os::fd::AsFd as _, sync::Arc, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, MapData, MapError},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;
use weir_common::flow::{
    FlowValue, GENERATIONS, KEY_WORDS, LedgerRow, ROW_SHIFT, Slot, VALUE_WORDS, VERDICT_KEEP,
};
use weir_flow::{
    Count, Ledger, Monotonic, Observation, Point, PointId, SocketOwner, Tick, Traffic, Tuple,
    filter::Pushdown,
};

use super::{
    clock::{Clock, ClockError},
    points::{Points, View},
    shared::SharedArray,
    sizes::Sizes,
};
use crate::{
    bpf::batch::BatchReader,
    conditions::{self, FILTER_WORDS},
    dns::DnsReader,
    grace::Grace,
    now,
    object::{LoadError, take},
};

/// Entries read from an overflow map at a time.
const BATCH: usize = 4096;

/// Time below a tenth of its size after which an overflow map is halved.
const SHRINK_AFTER: Duration = Duration::from_mins(10);

/// Word of a slot that is zero while the slot is free.
const OCCUPIED_WORD: usize = KEY_WORDS - 1;

/// Why a generation cannot be read. What was counted stays where it is and is read by the next drain that works.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The generation cannot be flipped.
    #[error("cannot switch generations in the kernel")]
    Flip(#[source] MapError),
    /// The wait for running programs failed.
    #[error("cannot wait for the kernel programs to finish")]
    Grace(#[source] MapError),
    /// The overflow map cannot be read.
    #[error("cannot read the overflow map")]
    Overflow(#[source] io::Error),
    /// The filter cannot be set.
    #[error("cannot set the filter in the kernel")]
    Filter(#[source] MapError),
    /// The kernel's clock cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// What one drain read, apart from the flows themselves.
#[derive(Clone, Debug)]
pub struct Drained {
    /// When the generation was no longer written.
    pub tick: Tick,
    /// Every point that was listed, with what it saw in this generation.
    pub ledgers: Vec<(Arc<Point>, Ledger)>,
    /// Packets of interfaces that nobody listed, ingress and egress.
    pub unlisted: [(Arc<Point>, Ledger); 2],
    /// The kernel's table.
    pub table: TableState,
}

/// How full the kernel's table was, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Slots in use.
    pub slots_used: usize,
    /// Slots in all, of one generation.
    pub slots: usize,
    /// Entries of the overflow map in use.
    pub overflow_used: usize,
    /// Entries that it could hold.
    pub overflow: u32,
    /// Entries that it holds from now on.
    pub next_overflow: u32,
    /// Why it could not be resized, if it should have been.
    pub resize_error: Option<String>,
    /// Time that the drain took, waiting included.
    pub took: Duration,
    /// Time that it waited for running programs.
    pub waited: Duration,
}

impl TableState {
    /// Whether packets were counted in total only, so that it is worth draining again soon.
    pub fn is_growing(&self) -> bool {
        self.next_overflow != self.overflow
    }
}

/// The section that holds the number of the live generation.
const GENERATION: &str = ".data.generation";

/// Reads what the counting programs wrote.
pub struct FlowReader {
    generation: Array<MapData, u32>,
    overflow: ArrayOfMaps<MapData, MapData>,
    inner: [MapData; GENERATIONS as usize],
    capacity: [u32; GENERATIONS as usize],
    target: u32,
    grace: Grace,
    filter: Array<MapData, [u64; FILTER_WORDS]>,
    wanted_filter: [u64; FILTER_WORDS],
    filter_pending: u8,
    slots: SharedArray<Slot>,
    ledger: SharedArray<LedgerRow>,
    batch: BatchReader<KEY_WORDS, VALUE_WORDS>,
    clock: Clock,
    points: Points,
    dns: Option<DnsReader>,
    sizes: Sizes,
    live: u32,
    /// Since when the overflow map is nearly empty.
    idle_since: Option<Monotonic>,
    /// A generation that ended and could not be read to the end.
    unfinished: Option<Unfinished>,
}

/// How far a drain came that failed.
enum Unfinished {
    /// The other generation is live since then, but programs may still write this one.
    Flipped { generation: u32, at: Monotonic },
    /// Only the overflow map was not read to the end.
    Read(Box<Reading>),
}

/// A generation that is being read.
struct Reading {
    generation: u32,
    tick: Tick,
    ledgers: Ledgers,
    slots_used: usize,
    overflow_used: usize,
    waited: Duration,
}

impl FlowReader {
    pub(super) fn new(
        ebpf: &mut Ebpf,
        sizes: Sizes,
        slots: SharedArray<Slot>,
        ledger: SharedArray<LedgerRow>,
        clock: Clock,
        points: Points,
        filter: &Pushdown,
    ) -> Result<Self, LoadError> {
        let map = |name| move |source| LoadError::Map { name, source };
        let mut overflow: ArrayOfMaps<_, MapData> =
            take(ebpf, "OVERFLOW")?.try_into().map_err(map("OVERFLOW"))?;
        let inner = || overflow_map(sizes.overflow).map_err(map("OVERFLOW"));
        let inner = [inner()?, inner()?];
        for (generation, inner) in (0..).zip(&inner) {
            overflow.set(generation, inner, 0).map_err(map("OVERFLOW"))?;
        }
        let mut wanted: Array<_, [u64; FILTER_WORDS]> =
            take(ebpf, "FILTER")?.try_into().map_err(map("FILTER"))?;
        let wanted_filter = conditions::words(filter);
        for generation in 0..GENERATIONS {
            wanted.set(generation, wanted_filter, 0).map_err(map("FILTER"))?;
        }
        Ok(Self {
            generation: take(ebpf, GENERATION)?.try_into().map_err(map(GENERATION))?,
            overflow,
            inner,
            capacity: [sizes.overflow; GENERATIONS as usize],
            target: sizes.overflow,
            grace: Grace::new(take(ebpf, "GRACE")?).map_err(map("GRACE"))?,
            filter: wanted,
            wanted_filter,
            filter_pending: 0,
            slots,
            ledger,
            batch: BatchReader::new(BATCH),
            clock,
            points,
            dns: None,
            sizes,
            live: 0,
            idle_since: None,
            unfinished: None,
        })
    }

    /// Adds what reads DNS messages.
    pub(super) fn with_dns(self, dns: Option<DnsReader>) -> Self {
        Self { dns, ..self }
    }

    /// What reads DNS messages, if they were asked for and nobody took it yet. It belongs on a thread of its own.
    pub fn take_dns(&mut self) -> Option<DnsReader> {
        self.dns.take()
    }

    /// The sizes of the kernel's tables.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Ticks per second of the kernel: times of flows are exact to one tick.
    pub fn ticks_per_second(&self) -> u64 {
        self.clock.rate()
    }

    /// Sets another filter, which new flows meet from the next generation on.
    pub fn set_filter(&mut self, filter: &Pushdown) {
        self.wanted_filter = conditions::words(filter);
        self.filter_pending = 2;
    }

    /// Reads everything that was counted since the last drain and hands each flow to `sink`.
    ///
    /// A flow that several CPUs saw comes once for each. Takes 10 to 30 ms, nearly all of it waiting.
    ///
    /// After an error nothing is lost: what `sink` got stays part of the drain, and the next call goes on with the rest.
    pub fn drain(&mut self, mut sink: impl FnMut(&Observation)) -> Result<Drained, DrainError> {
        let start = now::monotonic();
        let mut reading = match self.unfinished.take() {
            Some(Unfinished::Read(reading)) => *reading,
            Some(Unfinished::Flipped { generation, at }) => self.begin(generation, at, &mut sink)?,
            None => {
                let generation = self.live;
                self.flip()?;
                self.begin(generation, now::monotonic(), &mut sink)?
            }
        };
        if let Err(error) = self.drain_overflow(&mut reading, &mut sink) {
            self.unfinished = Some(Unfinished::Read(Box::new(reading)));
            return Err(error);
        }
        let Reading { generation, tick, ledgers, slots_used, overflow_used, waited } = reading;
        let mut table = TableState {
            slots_used,
            slots: (self.sizes.cpus * self.sizes.slots) as usize,
            overflow_used,
            overflow: self.capacity[generation as usize],
            waited,
            ..TableState::default()
        };
        self.resize(generation, ledgers.overflowed(), overflow_used, tick.monotonic, &mut table);
        table.took = now::monotonic() - start;
        let Ledgers { listed, unlisted, .. } = ledgers;
        Ok(Drained { tick, ledgers: listed, unlisted, table })
    }

    /// Waits until nobody writes a generation that is no longer live, and reads everything of it but its overflow map.
    fn begin(
        &mut self,
        generation: u32,
        flipped: Monotonic,
        sink: &mut impl FnMut(&Observation),
    ) -> Result<Reading, DrainError> {
        self.unfinished = Some(Unfinished::Flipped { generation, at: flipped });
        self.wait()?;
        self.clock.refresh()?;
        self.unfinished = None;
        let tick = now::tick();
        let mut ledgers = Ledgers::read(&self.ledger, &self.sizes, generation, &self.points.view());
        let slots_used = self.drain_slots(generation, &mut ledgers, sink);
        let waited = tick.monotonic - flipped;
        Ok(Reading { generation, tick, ledgers, slots_used, overflow_used: 0, waited })
    }

    /// Makes the other generation live.
    fn flip(&mut self) -> Result<(), DrainError> {
        let next = 1 - self.live;
        if self.filter_pending > 0 {
            self.filter.set(next, self.wanted_filter, 0).map_err(DrainError::Filter)?;
            self.filter_pending -= 1;
        }
        self.generation.set(0, next, 0).map_err(DrainError::Flip)?;
        self.live = next;
        Ok(())
    }

    /// Waits until every program that may have read the old generation has ended.
    fn wait(&mut self) -> Result<(), DrainError> {
        self.grace.wait().map_err(DrainError::Grace)
    }

    fn drain_slots(
        &self,
        generation: u32,
        ledgers: &mut Ledgers,
        sink: &mut impl FnMut(&Observation),
    ) -> usize {
        let mut used = 0;
        for shard in self.sizes.shards(generation) {
            let first = (shard * self.sizes.slots) as usize;
            for index in first..first + self.sizes.slots as usize {
                if self.slots.word(index, OCCUPIED_WORD) == 0 {
                    continue;
                }
                let slot = self.slots.read(index);
                self.slots.set_word(index, OCCUPIED_WORD, 0);
                used += 1;
                observe(&self.clock, ledgers, &slot.key.words, &slot.value, sink);
            }
        }
        used
    }

    fn drain_overflow(
        &mut self,
        reading: &mut Reading,
        sink: &mut impl FnMut(&Observation),
    ) -> Result<(), DrainError> {
        let Self { batch, inner, clock, .. } = self;
        let map = inner[reading.generation as usize].fd();
        batch
            .drain(map.as_fd(), |key, words| {
                let value: FlowValue = zerocopy::transmute!(*words);
                reading.overflow_used += 1;
                observe(clock, &mut reading.ledgers, key, &value, sink);
            })
            .map_err(DrainError::Overflow)
    }

    /// Replaces the drained overflow map by a larger or smaller one where that is due.
    fn resize(
        &mut self,
        generation: u32,
        overflowed: bool,
        used: usize,
        now: Monotonic,
        table: &mut TableState,
    ) {
        let capacity = self.capacity[generation as usize];
        if overflowed || used > capacity as usize / 2 {
            self.target = self.target.max(capacity.saturating_mul(2)).min(self.sizes.most_overflow);
            self.idle_since = None;
        } else if used < capacity as usize / 10 && capacity > self.sizes.overflow {
            let since = *self.idle_since.get_or_insert(now);
            if now - since >= SHRINK_AFTER {
                self.target = (self.target / 2).max(self.sizes.overflow);
                self.idle_since = Some(now);
            }
        } else {
            self.idle_since = None;
        }
        table.next_overflow = self.target;
        if self.target != capacity {
            // Only a map that was just drained is replaced, so nothing is lost with the old one.
            match overflow_map(self.target).and_then(|map| {
                self.overflow.set(generation, &map, 0)?;
                Ok(map)
            }) {
                Ok(map) => {
                    self.inner[generation as usize] = map;
                    self.capacity[generation as usize] = self.target;
                }
                Err(error) => {
                    table.resize_error = Some(format!("{} entries: {error}", self.target));
                    self.target = capacity;
                    table.next_overflow = capacity;
                }
            }
        }
    }

    /// To be called after each drain that worked: ends the rest of interfaces that were detached long enough ago. Hand the
    /// result to [`FlowAttacher::forget_drained`](super::FlowAttacher::forget_drained) on its thread.
    pub fn finish_drain(&self) -> Vec<u32> {
        self.points.drained()
    }
}

/// A preallocated hash map for one generation.
#[expect(clippy::cast_possible_truncation, reason = "keys and values are a few words")]
fn overflow_map(entries: u32) -> Result<MapData, MapError> {
    const KEY_BYTES: u32 = 8 * KEY_WORDS as u32;
    const VALUE_BYTES: u32 = 8 * VALUE_WORDS as u32;
    let map = aya_obj::Map::new_from_params(BPF_MAP_TYPE_HASH as u32, KEY_BYTES, VALUE_BYTES, entries, 0);
    MapData::create(map, "weir_overflow", None)
}

/// Turns one entry of the kernel into an observation.
fn observe(
    clock: &Clock,
    ledgers: &mut Ledgers,
    key: &[u64; KEY_WORDS],
    value: &FlowValue,
    sink: &mut impl FnMut(&Observation),
) {
    if value.verdict != VERDICT_KEEP {
        return;
    }
    let [a, b, c, d, details, place] = *key;
    #[expect(clippy::cast_possible_truncation, reason = "a row has 16 bits")]
    let point = ledgers.add_flow((place >> ROW_SHIFT) as u16, value);
    sink(&Observation {
        tuple: Tuple::from_words([a, b, c, d, details]),
        point,
        traffic: Traffic {
            bytes: value.bytes,
            packets: value.packets.into(),
            skbs: value.skbs.into(),
            skb_bytes: value.skb_bytes,
            last_length: value.last_length,
            tcp_flags: value.tcp_flags,
            last_tcp_flags: value.last_tcp_flags,
            syn: value.syn.into(),
            fin_rst: value.fin_rst.into(),
            dscp: value.dscp,
            ttl: value.ttl,
        },
        first: clock.monotonic(value.first),
        last: clock.monotonic(value.last),
        owner: SocketOwner { cookie: value.cookie, cgroup: value.cgroup },
    });
}

/// The ledger of one generation, summed over CPUs.
struct Ledgers {
    listed: Vec<(Arc<Point>, Ledger)>,
    unlisted: [(Arc<Point>, Ledger); 2],
    /// Index of the ingress entry in `listed` by row.
    places: std::collections::HashMap<u16, usize>,
}

impl Ledgers {
    fn read(array: &SharedArray<LedgerRow>, sizes: &Sizes, generation: u32, view: &View) -> Self {
        let take = |row: u32| {
            let mut sum = Ledger::default();
            for shard in sizes.shards(generation) {
                let index = (shard * sizes.rows + row) as usize;
                sum += ledger(&array.read(index));
                array.clear(index);
            }
            sum
        };
        let mut listed = Vec::with_capacity(view.rows.len() * 2);
        let mut places = std::collections::HashMap::with_capacity(view.rows.len());
        for (row, pair) in &view.rows {
            places.insert(*row, listed.len());
            listed.push((Arc::clone(&pair.ingress), take(u32::from(*row))));
            listed.push((Arc::clone(&pair.egress), take(u32::from(*row) + 1)));
        }
        let unlisted =
            [(Arc::clone(&view.unlisted.ingress), take(0)), (Arc::clone(&view.unlisted.egress), take(1))];
        Self { listed, unlisted, places }
    }

    /// Adds a flow to the ledger of its point, and says which that is.
    fn add_flow(&mut self, row: u16, value: &FlowValue) -> PointId {
        // Rows come in pairs, ingress first.
        let offset = usize::from(row & 1);
        let (point, ledger) = match self.places.get(&(row & !1)) {
            Some(place) => &mut self.listed[place + offset],
            None => &mut self.unlisted[offset],
        };
        ledger.flows += Count { packets: value.packets.into(), bytes: value.bytes };
        point.id
    }

    fn overflowed(&self) -> bool {
        self.listed.iter().chain(&self.unlisted).any(|(_, ledger)| ledger.overflow.packets != 0)
    }
}

fn ledger(row: &LedgerRow) -> Ledger {
    let count = |count: weir_common::flow::Count| Count { packets: count.packets, bytes: count.bytes };
    Ledger {
        seen: count(row.seen),
        skbs: row.skbs,
        skb_bytes: row.skb_bytes,
        flows: Count::default(),
        filtered: count(row.filtered),
        duplicate: count(row.duplicate),
        non_ip: count(row.non_ip),
        parse_error: count(row.parse_error),
        overflow: count(row.overflow),
    }
}
