//! [`Packets`]: what was said as packets in a pcapng file, for Wireshark and everything that reads it.
//!
//! Headers are made up, and payload is what was captured, without secrets. Sequence numbers are the positions in the
//! stream, so what was not captured shows as a hole. The first packet of each way says which process it was, the first one
//! behind a hole why that is there.

use std::{fmt::Write as _, io, net::IpAddr};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weir_datapath::tap::{Role, Transport};
use weir_flow::{Direction, Monotonic};
use weir_l7::{Chunk, GapReason, Way};
use weir_packet::Link;

use super::{At, Ended, Head, Output, Summary, Writer, WriterError};
use crate::pcapng::{CaptureWriter, FileNotes, Statistics};

/// Most bytes of payload in a packet, with an IPv4 and a TCP header before them in 65,535 bytes.
const MOST_PAYLOAD: usize = 65_495;

/// Longest packet, as the file says it.
const SNAP_LENGTH: u32 = 262_144;

/// The interface of all packets.
const INTERFACE: (u32, &str) = (0, "tap");

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// A file that is being written.
#[derive(Debug)]
pub struct Packets {
    file: CaptureWriter<Writer>,
    open: Option<Open>,
    told: HashMap<u64, Told, RandomState>,
    start_ns: u64,
    written: u64,
    holes: u64,
    failure: Option<io::Error>,
}

/// A packet to which bytes may be added.
#[derive(Debug)]
struct Open {
    connection: u64,
    way: Way,
    next: u64,
    payload: usize,
    /// Bytes of the headers.
    headers: usize,
    is_datagram: bool,
    comment: String,
}

/// What was said of a connection in comments, and what all its packets begin with, by [`Way`].
#[derive(Debug, Default)]
struct Told {
    is_named: [bool; 2],
    gap: [Option<(u64, GapReason)>; 2],
    headers: [Vec<u8>; 2],
}

impl Told {
    /// Who it is, if that was not said yet of this way, and what is missing before this.
    fn comment(&mut self, head: &Head, way: Way) -> String {
        let mut comment = String::new();
        if !std::mem::replace(&mut self.is_named[way as usize], true) {
            comment = head.who();
        }
        if let Some((length, reason)) = self.gap[way as usize].take() {
            let separator = if comment.is_empty() { "" } else { "; " };
            write!(comment, "{separator}before this {length} bytes are missing: {}", reason.name())
                .expect("a string takes any text");
        }
        comment
    }
}

impl Packets {
    /// Begins a file. `comment` says what was asked for.
    pub fn new(out: Writer, comment: &str, start_ns: u64) -> io::Result<Self> {
        let notes = FileNotes { system: "", comment };
        let file = CaptureWriter::new(out, SNAP_LENGTH, &notes)?;
        let (told, open) = (HashMap::default(), None);
        Ok(Self { file, open, told, start_ns, written: 0, holes: 0, failure: None })
    }

    /// A packet without payload.
    fn flags(&mut self, at: &At<'_>, way: Way, time: Monotonic, numbers: (u64, u64), flags: u8) {
        self.end();
        self.begin(at, way, time, numbers, flags);
        self.end();
    }

    /// Begins a packet with its headers. The numbers are those of its first byte and of the first one that the other end has not said.
    fn begin(
        &mut self,
        at: &At<'_>,
        way: Way,
        time: Monotonic,
        (sequence, acknowledged): (u64, u64),
        flags: u8,
    ) {
        let begun = self.file.begin(INTERFACE.0, INTERFACE.1, Link::Ip, at.tick.wall_of(time).0);
        if let Err(error) = begun {
            self.failure.get_or_insert(error);
            return;
        }
        let told = self.told.entry(at.head.number).or_default();
        let comment = told.comment(at.head, way);
        let header = &mut told.headers[way as usize];
        if header.is_empty() {
            *header = headers(at.head, way);
        }
        let is_datagram = at.head.opened.transport == Transport::Udp;
        if !is_datagram {
            let acknowledged = if flags & ACK == 0 { 0 } else { wrapped(acknowledged) };
            let tcp = header.len() - TCP_HEADER;
            header[tcp + 4..tcp + 8].copy_from_slice(&wrapped(sequence).to_be_bytes());
            header[tcp + 8..tcp + 12].copy_from_slice(&acknowledged.to_be_bytes());
            header[tcp + 13] = flags;
        }
        self.file.add(header);
        let (connection, headers) = (at.head.number, header.len());
        let next = sequence.wrapping_sub(1);
        self.open = Some(Open { connection, way, next, payload: 0, headers, is_datagram, comment });
    }

    /// Writes the packet that is open.
    fn end(&mut self) {
        let Some(open) = self.open.take() else { return };
        let packet = self.file.packet();
        let length = open.headers + open.payload;
        if packet[0] >> 4 == 4 {
            packet[2..4].copy_from_slice(&half(length).to_be_bytes());
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&half(length - 40).to_be_bytes());
        }
        if open.is_datagram {
            let at = open.headers - 4;
            packet[at..at + 2].copy_from_slice(&half(open.payload + 8).to_be_bytes());
        }
        let direction = if open.way == Way::Sent { Direction::Egress } else { Direction::Ingress };
        match self.file.end(direction, None, &open.comment) {
            Ok(()) => self.written += 1,
            Err(error) => drop(self.failure.get_or_insert(error)),
        }
    }

    fn bytes(&mut self, at: &At<'_>, way: Way, (position, time): (u64, Monotonic), data: &[u8]) {
        let mut position = position;
        let mut rest = data;
        while !rest.is_empty() {
            let is_open = self.open.as_ref().is_some_and(|open| {
                let is_same = open.connection == at.head.number && open.way == way && open.next == position;
                is_same && open.payload < MOST_PAYLOAD
            });
            if !is_open {
                self.end();
                let other = at.head.next[way.reversed() as usize];
                let numbers = (position + 1, other + 1);
                self.begin(at, way, time, numbers, PUSH | ACK);
            }
            let Some(open) = &mut self.open else { return };
            let (now, later) = rest.split_at((MOST_PAYLOAD - open.payload).min(rest.len()));
            self.file.add(now);
            open.payload += now.len();
            position += now.len() as u64;
            open.next = position;
            rest = later;
        }
    }
}

impl Output for Packets {
    fn opened(&mut self, at: &At<'_>) {
        let opened = &at.head.opened;
        if opened.transport != Transport::Tcp || opened.is_existing {
            return;
        }
        let Some(role) = opened.role else { return };
        // The shake of hands, so that it is known who opened the connection.
        let (client, server) =
            if role == Role::Client { (Way::Sent, Way::Received) } else { (Way::Received, Way::Sent) };
        let time = Monotonic(opened.time_ns);
        self.flags(at, client, time, (0, 0), SYN);
        self.flags(at, server, time, (0, 1), SYN | ACK);
        self.flags(at, client, time, (1, 1), ACK);
    }

    fn chunk(&mut self, at: &At<'_>, way: Way, chunk: Chunk<'_>) {
        if at.head.opened.transport == Transport::Unix {
            return;
        }
        match chunk {
            Chunk::Bytes { position, time, data } => self.bytes(at, way, (position, time), data),
            Chunk::Gap { length, reason, .. } => {
                self.end();
                self.holes += 1;
                let gap = &mut self.told.entry(at.head.number).or_default().gap[way as usize];
                let before = gap.map_or(0, |(before, _)| before);
                *gap = Some((before.saturating_add(length), reason));
            }
        }
    }

    fn settle(&mut self) {
        self.end();
    }

    fn finished(&mut self, at: &At<'_>, way: Way, time: Monotonic) {
        if at.head.opened.transport == Transport::Tcp {
            let numbers = (at.head.next[way as usize] + 1, at.head.next[way.reversed() as usize] + 1);
            self.flags(at, way, time, numbers, FIN | ACK);
        }
    }

    fn closed(&mut self, at: &At<'_>, _ended: &Ended) {
        self.told.remove(&at.head.number);
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is handed on are whole blocks.
        self.end();
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.file.target().hand_on(),
        }
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), WriterError> {
        self.end();
        let statistics = Statistics {
            start_ns: self.start_ns,
            end_ns: summary.end.wall.0,
            seen: self.written + self.holes,
            lost: self.holes,
            accepted: self.written + self.holes,
            written: self.written,
        };
        // What goes wrong here, the writer tells below.
        self.file.statistics(INTERFACE, &statistics, &summary.to_string()).ok();
        self.file.target().finish()
    }
}

/// An address of the same family that is nobody's.
fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
const fn wrapped(position: u64) -> u32 {
    position as u32
}

fn half(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// What packets of a connection begin with, one way: lengths and numbers are zero.
fn headers(head: &Head, way: Way) -> Vec<u8> {
    let (local, remote) = head.ends();
    let remote = remote.map_or((unspecified(local.ip()), 0), |end| (end.ip(), end.port()));
    let local = (local.ip(), local.port());
    let (source, destination) = match way {
        Way::Sent => (local, remote),
        Way::Received => (remote, local),
    };
    let is_datagram = head.opened.transport == Transport::Udp;
    let mut headers = Vec::new();
    push_ip(&mut headers, source.0, destination.0, if is_datagram { 17 } else { 6 });
    headers.extend(source.1.to_be_bytes());
    headers.extend(destination.1.to_be_bytes());
    if is_datagram {
        // Length, and no checksum.
        headers.extend([0; 4]);
    } else {
        headers.extend([0; 8]);
        // Five words of header, the flags, the largest window, no checksum.
        headers.extend([5 << 4, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }
    headers
}

/// The header of a packet of one version, whatever the ends are; its length comes later.
fn push_ip(data: &mut Vec<u8>, source: IpAddr, destination: IpAddr, protocol: u8) {
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        // Version and length, then flags "do not fragment", time to live.
        data.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        data.extend(source.octets());
        data.extend(destination.octets());
        return;
    }
    data.extend([0x60, 0, 0, 0, 0, 0, protocol, 64]);
    for end in [source, destination] {
        let end = match end {
            IpAddr::V4(end) => end.to_ipv6_mapped(),
            IpAddr::V6(end) => end,
        };
        data.extend(end.octets());
    }
}

/// The checksum of an IPv4 header (RFC 791 3.1), the place of which is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !half(((folded & 0xffff) + (folded >> 16)) as usize)
}
