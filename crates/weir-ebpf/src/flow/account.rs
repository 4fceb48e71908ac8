//! The path of a packet: place, headers, flow table, ledger.
//!
//! Plain packets (IPv4 or IPv6 without options, TCP or UDP, headers in one piece) of flows that have an entry take a
//! path of their own, without a function call: it is what counting costs. Everything else leaves what is known in
//! scratch memory and goes through [`weir_elsewhere`], a function that the verifier looks at once.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_get_smp_processor_id};
use weir_common::flow::{
    CPU_SHIFT, Count, GENERATIONS, KEY_WORDS, LedgerRow, POINT_COUNTED, POINT_DEDUPLICATE, POINT_SKIP_EGRESS,
    POINT_SKIP_INGRESS, PointEntry, ROW_SHIFT,
};
use weir_ebpf::{
    headers::{self, PARSED_IP, PARSED_MALFORMED, PARSED_NON_IP, ParsedHeaders},
    skb::{Frames, Skb},
};
use weir_packet::{
    Link, Tuple, ethertype,
    plain::{self, Plain},
    protocol,
};

use crate::{
    dns,
    entry::{self, Outcome, Packet},
    maps::{LEDGER, POINTS, ROWS, SCRATCH, Scratch, live_generation},
    table,
};

const ETHERNET_BYTES: usize = 14;

/// Headers that are read in place, up to the TCP flags. UDP packets that are shorter than this are rare enough for the
/// other path.
const IPV4_BYTES: usize = plain::IPV4_BYTES + plain::TCP_FLAGS_BYTES;
const IPV6_BYTES: usize = plain::IPV6_BYTES + plain::TCP_FLAGS_BYTES;

/// Which way a packet goes, seen from the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Received.
    Ingress,
    /// Sent.
    Egress,
}

/// Whether a packet is wanted for more than counting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is not.
    Plain,
    /// Its flow is at a DNS port.
    Dns,
}

/// What does not depend on the headers.
pub(crate) struct Place {
    /// Word 5 of the key: interface, row and CPU.
    word: u64,
    /// What the hash takes in its place: interface, direction and CPU, which are known before the row was looked up.
    pub(crate) spread: u64,
    /// Index of this CPU and generation.
    pub(crate) shard: u32,
    /// The generation that was live when the packet came: a packet belongs to one generation as a whole.
    pub(crate) generation: u32,
    /// Index of the ledger row.
    row: u32,
    /// Whether the packet was counted where it came in.
    is_duplicate: bool,
}

/// Counts a packet that a TC program sees.
#[inline(always)]
pub(crate) fn packet(skb: Skb, link: Link, direction: Direction) {
    let generation = live_generation();
    let place = Place::of(skb, direction, generation);
    let Some(row) = place.ledger() else { return };
    let kind = match plain_packet(skb, link, direction, &place, row) {
        Some(kind) => kind,
        None => unusual_packet(skb, link, direction, generation),
    };
    if kind == Kind::Dns {
        dns::hand_over(skb, link, direction);
    }
}

/// Counts a packet that an AF_PACKET socket sees.
#[inline(always)]
pub(crate) fn tapped_packet(skb: Skb, link: Link, direction: Direction) {
    let generation = live_generation();
    let skip = match direction {
        Direction::Ingress => POINT_SKIP_INGRESS,
        Direction::Egress => POINT_SKIP_EGRESS,
    };
    if point(skb.ifindex()).flags & skip == 0 && unusual_packet(skb, link, direction, generation) == Kind::Dns
    {
        dns::hand_over(skb, link, direction);
    }
}

#[inline(always)]
pub(crate) fn point(ifindex: u32) -> PointEntry {
    match POINTS.get(ifindex & 0xffff) {
        Some(point) if point.ifindex == ifindex => *point,
        // "Unlisted": nobody told us about this interface.
        _ => PointEntry { ifindex: 0, row: 0, role: 0, flags: 0 },
    }
}

/// Whether a packet that leaves at `point` was counted where it came in, at an interface of the same role.
#[inline(always)]
fn is_duplicate(skb: Skb, leaving: PointEntry) -> bool {
    let ingress = skb.ingress_ifindex();
    if leaving.flags & POINT_DEDUPLICATE == 0 || ingress == 0 {
        return false;
    }
    let entered = point(ingress);
    entered.flags & POINT_COUNTED != 0 && entered.role == leaving.role
}

impl Place {
    #[inline(always)]
    fn of(skb: Skb, direction: Direction, generation: u32) -> Self {
        // SAFETY: no arguments, no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let ifindex = skb.ifindex();
        let point = point(ifindex);
        let shard = cpu * GENERATIONS + generation;
        let is_egress = direction == Direction::Egress;
        let row = u32::from(point.row) + u32::from(is_egress);
        let interface = u64::from(ifindex) | u64::from(cpu) << CPU_SHIFT;
        Self {
            word: interface | u64::from(row) << ROW_SHIFT,
            spread: interface | u64::from(is_egress) << ROW_SHIFT,
            shard,
            generation,
            row: shard * ROWS.load() + row,
            is_duplicate: is_egress && is_duplicate(skb, point),
        }
    }

    /// The row of the ledger that this packet belongs to.
    #[inline(always)]
    fn ledger(&self) -> Option<&'static mut LedgerRow> {
        let row = LEDGER.get_ptr_mut(self.row)?;
        // SAFETY: a valid element, which only this CPU writes in this generation.
        Some(unsafe { &mut *row })
    }

    /// The key of a flow here.
    #[inline(always)]
    fn key(&self, tuple: &Tuple) -> [u64; KEY_WORDS] {
        let [source_high, source_low, destination_high, destination_low, details] = tuple.words();
        [source_high, source_low, destination_high, destination_low, details, self.word]
    }
}

/// Counts a plain packet; `None` if it is not plain, and then nothing happened.
#[inline(always)]
fn plain_packet(
    skb: Skb,
    link: Link,
    direction: Direction,
    place: &Place,
    row: &mut LedgerRow,
) -> Option<Kind> {
    match link {
        Link::Ethernet => {
            let frame: &[u8; ETHERNET_BYTES + IPV4_BYTES] = skb.linear()?;
            match u16::from_be_bytes([frame[12], frame[13]]) {
                ethertype::IPV4 => {
                    plain_ipv4(skb, direction, place, row, ETHERNET_BYTES, frame.last_chunk()?)
                }
                ethertype::IPV6 => {
                    let frame: &[u8; ETHERNET_BYTES + IPV6_BYTES] = skb.linear()?;
                    plain_ipv6(skb, direction, place, row, ETHERNET_BYTES, frame.last_chunk()?)
                }
                _ => None,
            }
        }
        Link::Ip => match skb.ethertype() {
            ethertype::IPV4 => plain_ipv4(skb, direction, place, row, 0, skb.linear()?),
            ethertype::IPV6 => plain_ipv6(skb, direction, place, row, 0, skb.linear()?),
            _ => None,
        },
    }
}

#[inline(always)]
fn plain_ipv4(
    skb: Skb,
    direction: Direction,
    place: &Place,
    row: &mut LedgerRow,
    offset: usize,
    packet: &[u8; IPV4_BYTES],
) -> Option<Kind> {
    let header = packet.first_chunk()?;
    let late = || {
        let (dscp, ttl) = plain::ipv4_marks(header);
        let is_tcp = header[9] == protocol::TCP;
        Late { dscp, ttl, is_tcp, offset: (offset + plain::IPV4_BYTES) as u64 }
    };
    Some(plain_flow(skb, direction, place, row, &plain::ipv4(header)?, packet.last_chunk()?, late))
}

#[inline(always)]
fn plain_ipv6(
    skb: Skb,
    direction: Direction,
    place: &Place,
    row: &mut LedgerRow,
    offset: usize,
    packet: &[u8; IPV6_BYTES],
) -> Option<Kind> {
    let header = packet.first_chunk()?;
    let late = || {
        let (dscp, ttl) = plain::ipv6_marks(header);
        let is_tcp = header[6] == protocol::TCP;
        Late { dscp, ttl, is_tcp, offset: (offset + plain::IPV6_BYTES) as u64 }
    };
    Some(plain_flow(skb, direction, place, row, &plain::ipv6(header)?, packet.last_chunk()?, late))
}

/// What is read from the headers only after the lookup, because machine registers are few and a call leaves only four.
struct Late {
    dscp: u8,
    ttl: u8,
    is_tcp: bool,
    /// Bytes before the transport header.
    offset: u64,
}

impl Late {
    /// TCP flags and length of the transport header.
    #[inline(always)]
    fn transport(&self, header: &[u8; plain::TCP_FLAGS_BYTES]) -> (u16, u64) {
        if self.is_tcp { plain::tcp_flags(header) } else { (0, plain::UDP_BYTES as u64) }
    }
}

/// Counts a packet whose addresses and ports are known. `transport` is the beginning of a TCP header, or bytes of a UDP
/// packet.
#[inline(always)]
fn plain_flow(
    skb: Skb,
    direction: Direction,
    place: &Place,
    row: &mut LedgerRow,
    plain: &Plain,
    transport: &[u8; plain::TCP_FLAGS_BYTES],
    late: impl Fn() -> Late,
) -> Kind {
    let tag = skb.stripped_vlan();
    let details = match tag {
        None => plain.details,
        Some(tag) => plain.details.with_vlan(tag),
    };
    let tuple = Tuple::new(plain.source, plain.destination, details);
    if place.is_duplicate {
        let late = late();
        let frames = skb.frames(tag.is_some(), || late.offset + late.transport(transport).1);
        see(row, &frames);
        add(&mut row.duplicate, &frames.count);
        return Kind::Plain;
    }
    let key = place.key(&tuple);
    let Some(entry) = table::find(&key, place) else {
        let late = late();
        let (tcp_flags, transport_bytes) = late.transport(transport);
        if let Some(scratch) = SCRATCH.get_ptr_mut(0) {
            let parsed = ParsedHeaders {
                words: tuple.words(),
                header_length: late.offset + transport_bytes,
                tcp_flags,
                ethertype: 0,
                dscp: late.dscp,
                ttl: late.ttl,
                reserved: [0; 2],
            };
            // SAFETY: the scratch memory belongs to this CPU until the program ends.
            unsafe { (*scratch).parsed = parsed };
        }
        return elsewhere(skb, &Hint::new(PARSED_IP, direction, place.generation));
    };
    let late = late();
    let outcome = table::admission(entry);
    if outcome == Outcome::Counted {
        // First what is at hand, so that no register has to hold it.
        entry::describe(table::value(entry), late.transport(transport).0, late.dscp, late.ttl);
    }
    let frames = skb.frames(tag.is_some(), || late.offset + late.transport(transport).1);
    see(row, &frames);
    if outcome == Outcome::Counted {
        table::count(entry, &frames);
    } else {
        refuse(row, outcome, &frames.count);
    }
    if table::value(entry).is_dns == 0 { Kind::Plain } else { Kind::Dns }
}

/// What [`weir_elsewhere`] needs to know in one number.
struct Hint(u64);

impl Hint {
    #[inline(always)]
    fn new(parsed: u64, direction: Direction, generation: u32) -> Self {
        let is_egress = direction == Direction::Egress;
        Self(parsed | u64::from(is_egress) << 8 | u64::from(generation) << 9)
    }

    /// One of the `PARSED_` constants.
    #[inline(always)]
    fn parsed(&self) -> u64 {
        self.0 & 0xff
    }

    #[inline(always)]
    fn direction(&self) -> Direction {
        if self.0 >> 8 & 1 == 0 { Direction::Ingress } else { Direction::Egress }
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        (self.0 >> 9 & 1) as u32
    }
}

/// Counts a packet whose headers take the general parser.
#[inline(always)]
fn unusual_packet(skb: Skb, link: Link, direction: Direction, generation: u32) -> Kind {
    let parsed = weir_parse(skb.as_ptr(), u64::from(link == Link::Ip));
    elsewhere(skb, &Hint::new(parsed, direction, generation))
}

/// [`weir_elsewhere`] with types.
#[inline(always)]
fn elsewhere(skb: Skb, hint: &Hint) -> Kind {
    if weir_elsewhere(skb.as_ptr(), hint.0) == 0 { Kind::Plain } else { Kind::Dns }
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

/// Counts a packet by `hint` and by what the scratch memory has about its headers. Returns 1 if it is at a DNS port.
///
/// A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_elsewhere(context: *mut __sk_buff, hint: u64) -> u64 {
    let (skb, hint) = (Skb::new(context), Hint(hint));
    let place = Place::of(skb, hint.direction(), hint.generation());
    let Some(row) = place.ledger() else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let Scratch { parsed: headers, value, .. } = unsafe { &mut *scratch };
    let is_tagged = skb.vlan_present() != 0;
    if hint.parsed() != PARSED_IP {
        let frames = skb.frames(is_tagged, || 0);
        see(row, &frames);
        let to = if hint.parsed() == PARSED_NON_IP { &mut row.non_ip } else { &mut row.parse_error };
        add(to, &frames.count);
        return 0;
    }
    let frames = skb.frames(is_tagged, || headers.header_length);
    see(row, &frames);
    if place.is_duplicate {
        add(&mut row.duplicate, &frames.count);
        return 0;
    }
    let key = place.key(&Tuple::from_words(headers.words));
    let is_dns = dns::weir_is_dns(headers.words[4]) as u8;
    let packet = Packet { frames: &frames, headers, is_dns };
    let outcome = match table::find(&key, &place) {
        Some(entry) => add_packet(entry, &packet),
        None => table::enter(skb, &key, &packet, &place, value),
    };
    if outcome != Outcome::Counted {
        refuse(row, outcome, &frames.count);
    }
    u64::from(is_dns)
}

/// Adds a packet to an entry, unless that takes no more.
#[inline(always)]
pub(crate) fn add_packet(entry: &mut table::Entry, packet: &Packet<'_>) -> Outcome {
    let outcome = table::admission(entry);
    if outcome == Outcome::Counted {
        packet.describe(table::value(entry));
        table::count(entry, packet.frames);
    }
    outcome
}

#[inline(always)]
fn see(row: &mut LedgerRow, frames: &Frames) {
    add(&mut row.seen, &frames.count);
    row.skbs += 1;
    row.skb_bytes += frames.skb_bytes;
}

/// Says in the ledger where a packet is that no flow counts.
#[inline(always)]
fn refuse(row: &mut LedgerRow, outcome: Outcome, count: &Count) {
    let to = match outcome {
        Outcome::Filtered => &mut row.filtered,
        Outcome::Counted | Outcome::Overflow => &mut row.overflow,
    };
    add(to, count);
}

#[inline(always)]
fn add(to: &mut Count, count: &Count) {
    to.packets += count.packets;
    to.bytes += count.bytes;
}
