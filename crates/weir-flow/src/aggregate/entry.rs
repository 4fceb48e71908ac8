//! What the table remembers of a flow: numbers only, so that it stays small; records are made from it.

use std::time::Duration;

use weir_packet::protocol;

use super::key::{Key, Way};
use crate::{Count, EndReason, Initiator, Monotonic, Observation, SocketOwner, Tick, Traffic, Wall};

/// FIN in TCP flags (RFC 9293 3.1).
pub(crate) const FIN: u16 = 0x01;
/// SYN in TCP flags.
pub(crate) const SYN: u16 = 0x02;
/// RST in TCP flags.
pub(crate) const RST: u16 = 0x04;

/// A flow.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// Monotonic second of the last record, or of the first packet.
    pub(super) exported_s: u32,
    /// First packet. Fixed once a tick has given the flow its wall time.
    pub(super) first: Monotonic,
    /// Wall time of the first packet, once `is_dated`.
    pub(super) start: Wall,
    /// What was counted each way.
    pub(super) ways: [Counted; 2],
    /// Sockets of the ends, each at the index of the way in which it sends.
    pub(super) owners: [SocketOwner; 2],
    pub(super) stage: Stage,
    /// The way from the source to the destination.
    pub(super) forward: Way,
    /// How `forward` was chosen, once a record has told.
    pub(super) initiator: Option<Initiator>,
    /// The way of the earliest packet.
    pub(super) opener: Way,
    /// Whether the earliest packets of both ways have the same time.
    pub(super) is_tied: bool,
    /// Whether there is something that no record has told yet.
    pub(super) is_changed: bool,
    /// Whether `start` is set.
    pub(super) is_dated: bool,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The entry is not in use.
    Free,
    /// Packets are expected.
    Live,
    /// It was closed since the last tick.
    Closing,
    /// It was closed before the last tick; at the next one it ends.
    Lingering,
    /// It ended and another flow took over its key; the next tick tells.
    Over(EndReason),
}

/// What was counted one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Told by records.
    before: Sums,
    /// Since the last record.
    delta: Sums,
    /// Last packet; zero while there was none.
    pub(super) last: Monotonic,
    last_length: u32,
    flags_before: u16,
    flags_delta: u16,
    last_flags: u16,
    dscp: u8,
    ttl: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    bytes: u64,
    packets: u64,
    skbs: u64,
    skb_bytes: u64,
    syn: u32,
    fin_rst: u32,
}

impl Entry {
    /// A flow that begins with `observation`, without its counts.
    pub(super) fn new(key: Key, way: Way, observation: &Observation) -> Self {
        Self {
            key,
            exported_s: seconds(observation.first),
            first: observation.first,
            start: Wall::default(),
            ways: [Counted::default(); 2],
            owners: [SocketOwner::default(); 2],
            stage: Stage::Live,
            forward: way,
            initiator: None,
            opener: way,
            is_tied: false,
            is_changed: false,
            is_dated: false,
        }
    }

    /// Adds an observation of this flow.
    #[inline]
    pub(super) fn add(&mut self, way: Way, observation: &Observation) {
        self.learn_owner(way, observation);
        self.ways[way.index()].add(&observation.traffic, observation.last);
        self.is_changed = true;
        if !self.is_dated {
            if observation.first < self.first {
                (self.first, self.opener, self.is_tied) = (observation.first, way, false);
                self.exported_s = seconds(self.first);
            } else if observation.first == self.first && way != self.opener {
                self.is_tied = true;
            }
        }
        if self.stage == Stage::Live && self.is_tcp() && self.is_closed() {
            self.stage = Stage::Closing;
        }
    }

    /// Keeps the socket that is most likely the connection's own.
    ///
    /// The kernel sends SYN|ACK on behalf of the listening socket, and a RST or the last ACK, when the connection's
    /// socket is gone, from a socket of its own. So what a handshake told gives way to what later packets tell, and
    /// after FIN nothing new is learnt.
    #[inline]
    fn learn_owner(&mut self, way: Way, observation: &Observation) {
        let (known, news) = (&mut self.owners[way.index()], observation.owner);
        if news == SocketOwner::default() || news == *known {
            return;
        }
        let is_connections_own = observation.traffic.tcp_flags & (SYN | RST) == 0
            && self.ways[way.index()].flags() & (FIN | RST) == 0;
        if known.cookie == 0 || (is_connections_own && news.cookie != 0) {
            *known = news;
        }
    }

    /// Whether TCP says that the connection is over.
    fn is_closed(&self) -> bool {
        let [canonical, reverse] = [self.ways[0].flags(), self.ways[1].flags()];
        (canonical | reverse) & RST != 0 || canonical & reverse & FIN != 0
    }

    /// Why a closed connection is over.
    pub(super) fn closed_by(&self) -> EndReason {
        if self.ways[0].flags() & self.ways[1].flags() & FIN != 0 { EndReason::Fin } else { EndReason::Reset }
    }

    /// Whether `observation` cannot belong to this flow any more, and why the flow was over: after a close, a new SYN;
    /// at any time, a silence of the idle timeout.
    #[inline]
    pub(super) fn ended_before(&self, observation: &Observation, idle: Duration) -> Option<EndReason> {
        let last = self.last();
        if observation.first <= last {
            return None;
        }
        if observation.first - last >= idle {
            return Some(EndReason::Idle);
        }
        let is_closed = matches!(self.stage, Stage::Closing | Stage::Lingering);
        (is_closed && observation.traffic.tcp_flags & SYN != 0).then(|| self.closed_by())
    }

    /// Gives the flow its wall time, once.
    pub(super) fn date(&mut self, tick: &Tick) {
        if !self.is_dated {
            self.start = tick.wall_of(self.first);
            self.is_dated = true;
        }
    }

    /// Notes that a record told everything up to now.
    pub(super) fn settle(&mut self, tick: &Tick) {
        for counted in &mut self.ways {
            counted.settle();
        }
        self.is_changed = false;
        self.exported_s = seconds(tick.monotonic);
    }

    pub(super) fn last(&self) -> Monotonic {
        self.ways[0].last.max(self.ways[1].last)
    }

    pub(super) const fn is_tcp(&self) -> bool {
        self.key.tuple.protocol() == protocol::TCP
    }

    /// Everything that was counted, both ways.
    pub(super) fn count(&self) -> Count {
        self.ways[0].count() + self.ways[1].count()
    }
}

impl Counted {
    #[inline]
    pub(super) fn add(&mut self, traffic: &Traffic, last: Monotonic) {
        self.delta.bytes += traffic.bytes;
        self.delta.packets += traffic.packets;
        self.delta.skbs += traffic.skbs;
        self.delta.skb_bytes += traffic.skb_bytes;
        self.delta.syn = self.delta.syn.saturating_add(traffic.syn);
        self.delta.fin_rst = self.delta.fin_rst.saturating_add(traffic.fin_rst);
        self.flags_delta |= traffic.tcp_flags;
        if last >= self.last {
            self.last = last;
            self.last_length = traffic.last_length;
            self.last_flags = traffic.last_tcp_flags;
            self.dscp = traffic.dscp;
            self.ttl = traffic.ttl;
        }
    }

    pub(super) fn settle(&mut self) {
        self.before = self.before.plus(&self.delta);
        self.delta = Sums::default();
        self.flags_before |= self.flags_delta;
        self.flags_delta = 0;
    }

    /// Since the last record.
    pub(super) fn delta(&self) -> Traffic {
        self.traffic(&self.delta, self.flags_delta)
    }

    /// Since the first packet.
    pub(super) fn total(&self) -> Traffic {
        self.traffic(&self.before.plus(&self.delta), self.flags())
    }

    pub(super) fn count(&self) -> Count {
        Count {
            packets: self.before.packets + self.delta.packets,
            bytes: self.before.bytes + self.delta.bytes,
        }
    }

    /// TCP flags since the first packet.
    pub(super) const fn flags(&self) -> u16 {
        self.flags_before | self.flags_delta
    }

    /// Packets with SYN and without ACK since the first packet.
    pub(super) const fn openings(&self) -> u32 {
        self.before.syn.saturating_add(self.delta.syn)
    }

    /// Whether any packet had SYN.
    pub(super) const fn had_syn(&self) -> bool {
        self.flags() & SYN != 0
    }

    const fn traffic(&self, sums: &Sums, tcp_flags: u16) -> Traffic {
        Traffic {
            bytes: sums.bytes,
            packets: sums.packets,
            skbs: sums.skbs,
            skb_bytes: sums.skb_bytes,
            last_length: self.last_length,
            tcp_flags,
            last_tcp_flags: self.last_flags,
            syn: sums.syn,
            fin_rst: sums.fin_rst,
            dscp: self.dscp,
            ttl: self.ttl,
        }
    }
}

impl Sums {
    const fn plus(&self, other: &Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            packets: self.packets + other.packets,
            skbs: self.skbs + other.skbs,
            skb_bytes: self.skb_bytes + other.skb_bytes,
            syn: self.syn.saturating_add(other.syn),
            fin_rst: self.fin_rst.saturating_add(other.fin_rst),
        }
    }
}

/// Whole seconds of a moment: 136 years of them fit.
#[expect(clippy::cast_possible_truncation, reason = "no machine runs for 136 years")]
pub(super) const fn seconds(moment: Monotonic) -> u32 {
    (moment.0 / 1_000_000_000) as u32
}

// Five cache lines: what 64 MiB hold depends on it.
const _: () = assert!(size_of::<Entry>() <= 320);
