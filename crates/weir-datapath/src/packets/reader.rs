//! Taking packets out of the ring buffer.

use std::{io, ops::ControlFlow, os::fd::AsRawFd as _, sync::Arc, time::Duration};

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use weir_common::packets::ROW_WORDS;
use weir_flow::{Monotonic, Point, SocketOwner, Tick};

use super::{
    packet::{Packet, PacketLedger, Record, ledger},
    points::{Listed, Points},
};
use crate::{grace::Grace, now};

/// Most packets that are handed over before the caller gets a turn.
const BATCH: usize = 4096;

/// Change of the distance between the clocks in nanoseconds that is more than reading both may take.
const CLOCK_NOISE_NS: u64 = 1_000_000;

/// Why packets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The wait for packets failed.
    #[error("cannot wait for packets")]
    Wait(#[source] io::Error),
    /// The wait for running programs failed.
    #[error("cannot wait for the kernel programs to finish")]
    Grace(#[source] MapError),
    /// The counters cannot be read.
    #[error("cannot read the counters of captured packets")]
    Ledger(#[source] MapError),
    /// A record contradicts itself: the object and the binary are not of one build.
    #[error("the kernel programs wrote a record of {0} bytes that is shorter than it says")]
    Record(usize),
}

/// Reads packets and counters. Belongs on a thread that keeps up: what waits too long in the ring is not overwritten, but
/// what comes when it is full is lost (and counted).
pub struct PacketReader {
    ring: RingBuf<MapData>,
    ledger: PerCpuArray<MapData, [u64; ROW_WORDS]>,
    grace: Grace,
    points: Points,
    listed: Vec<Listed>,
    snap_length: usize,
    clocks: Tick,
    buffer: Vec<u8>,
    has_more: bool,
}

impl PacketReader {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        ledger: PerCpuArray<MapData, [u64; ROW_WORDS]>,
        grace: Grace,
        points: Points,
        snap_length: u32,
    ) -> Self {
        let listed = points.all();
        Self {
            ring,
            ledger,
            grace,
            points,
            listed,
            snap_length: snap_length as usize,
            clocks: now::tick(),
            buffer: Vec::new(),
            has_more: false,
        }
    }

    /// Waits for packets, at most as long as `timeout`, and hands them to `sink` until it breaks off, a few thousand were
    /// handed over, or nothing is left. Returns how many there were. A signal ends the wait early.
    pub fn read(
        &mut self,
        timeout: Duration,
        mut sink: impl FnMut(&Packet<'_>) -> ControlFlow<()>,
    ) -> Result<usize, ReadError> {
        if !self.has_more {
            self.wait(timeout)?;
        }
        self.compare_clocks();
        self.has_more = false;
        let Self { ring, points, listed, snap_length, clocks, buffer, has_more, .. } = self;
        let mut count = 0;
        while let Some(item) = ring.next() {
            let record = Record::read(&item).ok_or(ReadError::Record(item.len()))?;
            let row = record.header.row as usize;
            if row >= listed.len() {
                *listed = points.all();
            }
            // A row that nobody gave out cannot be; if it were, its packets are of unknown origin.
            let Listed { point, link } = listed.get(row).unwrap_or(&listed[0]);
            let header = &record.header;
            let time = Monotonic(header.time_ns);
            let packet = Packet {
                point,
                link: *link,
                time,
                wall: clocks.wall_of(time),
                owner: SocketOwner { cookie: header.cookie, cgroup: header.cgroup },
                parsed: record.parsed(),
                segments: header.segments,
                wire_bytes: header.wire_bytes,
                length: record.length(),
                frame: record.frame(*link, *snap_length, buffer),
            };
            count += 1;
            if sink(&packet).is_break() || count == BATCH {
                *has_more = true;
                break;
            }
        }
        Ok(count)
    }

    /// Waits until no program is running any more. After everything was detached, what is then in the ring buffer and in
    /// the ledgers is all there will be.
    pub fn settle(&mut self) -> Result<(), ReadError> {
        self.grace.wait().map_err(ReadError::Grace)
    }

    /// What became of the packets of each point so far, of points that are gone too; last come those of interfaces that
    /// nobody listed, if there were any.
    ///
    /// While programs are running a packet may be in the middle of being counted.
    pub fn ledgers(&mut self) -> Result<Vec<(Arc<Point>, PacketLedger)>, ReadError> {
        self.listed = self.points.all();
        let mut ledgers = Vec::with_capacity(self.listed.len());
        for (row, Listed { point, .. }) in (0..).zip(&self.listed) {
            let mut sum = PacketLedger::default();
            for words in self.ledger.get(&row, 0).map_err(ReadError::Ledger)?.iter() {
                sum += ledger(*words);
            }
            ledgers.push((Arc::clone(point), sum));
        }
        ledgers.rotate_left(2);
        while ledgers.pop_if(|(point, sum)| point.ifindex == 0 && *sum == PacketLedger::default()).is_some() {
        }
        Ok(ledgers)
    }

    fn wait(&self, timeout: Duration) -> Result<(), ReadError> {
        let mut descriptor = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure, which outlives the call.
        if unsafe { libc::poll(&raw mut descriptor, 1, milliseconds) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(ReadError::Wait(error));
            }
        }
        Ok(())
    }

    /// Takes up a step of the wall clock (or a sleep of the machine), and nothing smaller: the times of packets must not
    /// tremble.
    fn compare_clocks(&mut self) {
        let fresh = now::tick();
        let expected = self.clocks.wall_of(fresh.monotonic);
        if expected.0.abs_diff(fresh.wall.0) > CLOCK_NOISE_NS {
            self.clocks = fresh;
        }
    }
}
