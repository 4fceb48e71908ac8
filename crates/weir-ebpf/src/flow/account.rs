//! The path of a packet: headers, ledger, flow table.
//!
//! Plain packets (IPv4 or IPv6 without options, TCP or UDP, headers in one piece) take a path of a few dozen
//! instructions; everything else is copied once and goes through the general parser of weir-packet.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_smp_processor_id, bpf_jiffies64},
};
use weir_common::flow::{Count, EGRESS_BIT, LedgerRow, POINT_SKIP_EGRESS, POINT_SKIP_INGRESS, PointEntry};
use weir_ebpf::{
    headers::{self, PARSED_IP, PARSED_MALFORMED, PARSED_NON_IP},
    skb::Skb,
};
use weir_packet::{
    Link, Tuple, ethertype, last_frame_bytes,
    plain::{self, Plain},
    protocol,
};

use crate::{
    entry::{Flow, Outcome},
    maps::{CPUS, GENERATION, LEDGER, POINTS, ROWS, SCRATCH, SLOT_BITS, Scratch},
    table,
};

const ETHERNET_BYTES: usize = 14;

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;

/// Which way a packet goes, seen from the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Received.
    Ingress,
    /// Sent.
    Egress,
}

/// What one packet counts for.
pub(crate) struct Packet {
    /// `skb->len`.
    pub(crate) skb_bytes: u64,
    /// Bytes on the wire.
    pub(crate) bytes: u64,
    /// Frames on the wire.
    pub(crate) packets: u32,
    /// Wire length of the last frame.
    pub(crate) last_length: u32,
    /// Now, in jiffies.
    pub(crate) now: u32,
    /// TCP flags, nine bits.
    pub(crate) tcp_flags: u16,
    /// DSCP.
    pub(crate) dscp: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
}

impl Packet {
    /// Whether it asks for a TCP connection (SYN without ACK).
    #[inline(always)]
    pub(crate) const fn opens(&self) -> bool {
        self.tcp_flags & (SYN | ACK) == SYN
    }

    /// Whether it ends one side of a TCP connection.
    #[inline(always)]
    pub(crate) const fn closes(&self) -> bool {
        self.tcp_flags & (FIN | RST) != 0
    }
}

/// What does not depend on the headers.
#[derive(Clone, Copy)]
struct Place {
    direction: Direction,
    generation: u32,
    cpu: u32,
    ifindex: u32,
    point: PointEntry,
}

/// What was found in the headers.
struct Headers {
    tuple: Tuple,
    header_length: u64,
    tcp_flags: u16,
    dscp: u8,
    ttl: u8,
}

/// Counts a packet that a TC program sees.
#[inline(always)]
pub(crate) fn packet(skb: Skb, link: Link, direction: Direction) {
    let place = place(skb, direction);
    let headers = match plain_headers(skb, link) {
        Some(headers) => Ok(headers),
        None => unusual(skb, link),
    };
    account(skb, &place, &headers);
}

/// Counts a packet that an AF_PACKET socket sees.
#[inline(always)]
pub(crate) fn tapped_packet(skb: Skb, link: Link, direction: Direction) {
    let place = place(skb, direction);
    let skip = match direction {
        Direction::Ingress => POINT_SKIP_INGRESS,
        Direction::Egress => POINT_SKIP_EGRESS,
    };
    if place.point.flags & skip == 0 {
        account(skb, &place, &unusual(skb, link));
    }
}

#[inline(always)]
fn account(skb: Skb, place: &Place, headers: &Result<Headers, Reason>) {
    match headers {
        Ok(headers) => flow(skb, place, headers),
        Err(reason) => without_flow(skb, place, *reason),
    }
}

#[inline(always)]
fn place(skb: Skb, direction: Direction) -> Place {
    // SAFETY: no arguments, no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let generation = match GENERATION.get_ptr(0) {
        // Read once and passed on: a packet belongs to one generation as a whole.
        // SAFETY: a valid element, which user space writes with one aligned store.
        Some(generation) => (unsafe { generation.read_volatile() }) & 1,
        None => 0,
    };
    let ifindex = skb.ifindex();
    let point = match POINTS.get(ifindex & 0xffff) {
        Some(point) if point.ifindex == ifindex => *point,
        // "Unlisted": nobody told us about this interface.
        _ => PointEntry { ifindex: 0, row: 0, role: 0, flags: 0 },
    };
    Place { direction, generation, cpu, ifindex, point }
}

impl Place {
    /// Index of this generation and CPU.
    #[inline(always)]
    fn shard(&self) -> u32 {
        self.generation * CPUS.load() + self.cpu
    }

    /// The row of the ledger that this packet belongs to.
    #[inline(always)]
    fn ledger(&self) -> Option<&'static mut LedgerRow> {
        let row = u32::from(self.point.row) + u32::from(self.direction == Direction::Egress);
        let row = LEDGER.get_ptr_mut(self.shard() * ROWS.load() + row)?;
        // SAFETY: a valid element, which only this CPU writes in this generation.
        Some(unsafe { &mut *row })
    }
}

/// Reads the headers in place if the packet is a plain one.
#[inline(always)]
fn plain_headers(skb: Skb, link: Link) -> Option<Headers> {
    let (ethertype, network) = match link {
        Link::Ethernet => {
            let frame: &[u8; ETHERNET_BYTES] = skb.linear(0)?;
            (u16::from_be_bytes([frame[12], frame[13]]), ETHERNET_BYTES)
        }
        Link::Ip => (skb.ethertype(), 0),
    };
    let (plain, transport) = match ethertype {
        ethertype::IPV4 => (plain::ipv4(skb.linear(network)?)?, network + plain::IPV4_BYTES),
        ethertype::IPV6 => (plain::ipv6(skb.linear(network)?)?, network + plain::IPV6_BYTES),
        _ => return None,
    };
    let (tcp_flags, transport_length) = if plain.protocol == protocol::TCP {
        plain::tcp_flags(skb.linear(transport)?)
    } else {
        (0, plain::UDP_BYTES as u64)
    };
    let Plain { source, destination, details, dscp, ttl, .. } = plain;
    let details = match skb.stripped_vlan() {
        None => details,
        Some(tag) => details.with_vlan(tag),
    };
    Some(Headers {
        tuple: Tuple::new(source, destination, details),
        header_length: transport as u64 + transport_length,
        tcp_flags,
        dscp,
        ttl,
    })
}

/// Why a packet belongs to no flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    NonIp,
    Malformed,
}

/// Reads the headers of a packet that is not plain.
#[inline(always)]
fn unusual(skb: Skb, link: Link) -> Result<Headers, Reason> {
    match weir_parse(skb.as_ptr(), u64::from(link == Link::Ip)) {
        PARSED_IP => {}
        PARSED_NON_IP => return Err(Reason::NonIp),
        _ => return Err(Reason::Malformed),
    }
    let Some(scratch) = SCRATCH.get_ptr(0) else { return Err(Reason::Malformed) };
    // SAFETY: the scratch memory belongs to this CPU until the program ends.
    let parsed = unsafe { &(*scratch).parsed };
    Ok(Headers {
        tuple: Tuple::from_words(parsed.words),
        header_length: parsed.header_length,
        tcp_flags: parsed.tcp_flags,
        dscp: parsed.dscp,
        ttl: parsed.ttl,
    })
}

/// Copies the headers of a packet, parses them and leaves the result in the scratch memory.
///
/// A global function, which the verifier checks once and not anew for each program and path that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_parse(context: *mut __sk_buff, is_ip_device: u64) -> u64 {
    let skb = Skb::new(context);
    let link = if is_ip_device != 0 { Link::Ip } else { Link::Ethernet };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PARSED_MALFORMED };
    // SAFETY: as above.
    let Scratch { headers, parsed, .. } = unsafe { &mut *scratch };
    headers::read(skb, link, headers, parsed)
}

/// Counts a packet that belongs to no flow.
#[inline(always)]
fn without_flow(skb: Skb, place: &Place, reason: Reason) {
    let count = skb.on_the_wire(0);
    if let Some(row) = place.ledger() {
        see(row, skb, &count);
        match reason {
            Reason::NonIp => add(&mut row.non_ip, &count),
            Reason::Malformed => add(&mut row.parse_error, &count),
        }
    }
}

/// Counts a packet for its flow.
#[inline(always)]
fn flow(skb: Skb, place: &Place, headers: &Headers) {
    let count = skb.on_the_wire(headers.header_length);
    let Some(row) = place.ledger() else { return };
    see(row, skb, &count);
    let egress = if place.direction == Direction::Egress { EGRESS_BIT } else { 0 };
    let [a, b, c, d, details] = headers.tuple.words();
    let flow = Flow {
        words: [a, b, c, d, details | egress, u64::from(place.ifindex) | u64::from(place.cpu) << 48],
        generation: place.generation,
        first_slot: place.shard() << (SLOT_BITS.load() & 31),
        point_flags: place.point.flags,
    };
    let packet = Packet {
        skb_bytes: u64::from(skb.length()),
        bytes: count.bytes,
        packets: count.packets as u32,
        last_length: last_frame_bytes(
            u64::from(skb.length()),
            skb.vlan_present() != 0,
            count.packets,
            skb.gso_size(),
            headers.header_length,
        ) as u32,
        // SAFETY: no arguments, no preconditions.
        now: unsafe { bpf_jiffies64() } as u32,
        tcp_flags: headers.tcp_flags,
        dscp: headers.dscp,
        ttl: headers.ttl,
    };
    match table::count(skb, &flow, &packet) {
        Outcome::Counted => {}
        Outcome::Filtered => add(&mut row.filtered, &count),
        Outcome::Duplicate => add(&mut row.duplicate, &count),
        Outcome::Overflow => add(&mut row.overflow, &count),
    }
}

#[inline(always)]
fn see(row: &mut LedgerRow, skb: Skb, count: &Count) {
    add(&mut row.seen, count);
    row.skbs += 1;
    row.skb_bytes += u64::from(skb.length());
}

#[inline(always)]
fn add(to: &mut Count, count: &Count) {
    to.packets += count.packets;
    to.bytes += count.bytes;
}
