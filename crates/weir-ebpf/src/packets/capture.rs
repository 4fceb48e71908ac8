//! The path of a packet: headers, filter, ledger, ring.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns};
use weir_common::{
    flow::{Count, PointEntry},
    packets::{KIND_IP, KIND_MALFORMED, KIND_NON_IP, PacketHeader, PacketRow},
};
use weir_ebpf::{
    filter::FilterSet,
    headers::{self, PARSED_IP, PARSED_MALFORMED, PARSED_NON_IP},
    skb::Skb,
};
use weir_packet::{Link, Tuple, VLAN_TAG_BYTES};

use crate::{
    maps::{FILTER, LEDGER, POINTS, SCRATCH, SNAP_LENGTH, Scratch},
    record,
};

/// Offset of the ledger row for what an interface receives.
pub(crate) const INGRESS: u32 = 0;
/// Offset of the ledger row for what an interface sends.
pub(crate) const EGRESS: u32 = 1;

/// Captures one packet.
#[inline(always)]
pub(crate) fn packet(skb: Skb, link: Link, direction: u32) {
    // SAFETY: no arguments, no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let number = row_number(skb.ifindex(), direction);
    let Some(row) = LEDGER.get_ptr_mut(number) else { return };
    // SAFETY: a valid element of this CPU, which no other program writes meanwhile.
    let row: &mut PacketRow = unsafe { &mut *row };
    let tag = if skb.vlan_present() == 0 { 0 } else { VLAN_TAG_BYTES };
    let count = Count { packets: 1, bytes: u64::from(skb.length()) + tag };
    add(&mut row.seen, &count);

    let outcome = weir_parse(skb.as_ptr(), u64::from(link == Link::Ip));
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the scratch memory belongs to this CPU until the program ends.
    let Scratch { parsed, header, .. } = unsafe { &mut *scratch };
    let (kind, admitted) = match outcome {
        PARSED_IP => (KIND_IP, admits(parsed.words)),
        PARSED_NON_IP => (KIND_NON_IP, admits_without_tuple()),
        _ => (KIND_MALFORMED, admits_without_tuple()),
    };
    if !admitted {
        add(&mut row.filtered, &count);
        return;
    }

    let header_length = if kind == KIND_IP { parsed.header_length } else { 0 };
    let wire = skb.on_the_wire(header_length);
    let stripped = skb.vlan_present() != 0;
    header.time_ns = now;
    header.tuple = parsed.words;
    header.wire_bytes = wire.bytes;
    header.segments = wire.packets as u32;
    header.length = skb.length();
    header.ifindex = skb.ifindex();
    header.row = number;
    header.header_length = header_length as u32;
    header.tcp_flags = parsed.tcp_flags;
    header.ethertype = if kind == KIND_NON_IP { parsed.ethertype } else { skb.ethertype() };
    header.vlan_ethertype = if stripped { u16::from_be(skb.vlan_protocol() as u16) } else { 0 };
    header.vlan_tag = if stripped { skb.vlan_tci() as u16 } else { 0 };
    header.dscp = parsed.dscp;
    header.ttl = parsed.ttl;
    header.kind = kind;
    if weir_record(skb.as_ptr()) == 0 {
        add(&mut row.lost, &count);
        return;
    }
    add(&mut row.written, &count);
    if count.bytes > u64::from(SNAP_LENGTH.load()) {
        add(&mut row.cut, &count);
    }
}

/// Row of the ledger for an interface and direction; the first two are for interfaces that nobody listed.
#[inline(always)]
fn row_number(ifindex: u32, direction: u32) -> u32 {
    let row = match POINTS.get(ifindex & 0xffff) {
        Some(PointEntry { ifindex: listed, row, .. }) if *listed == ifindex => *row,
        _ => 0,
    };
    u32::from(row) + direction
}

#[inline(always)]
fn add(to: &mut Count, count: &Count) {
    to.packets += count.packets;
    to.bytes += count.bytes;
}

#[inline(always)]
fn admits(words: [u64; 5]) -> bool {
    let [a, b, c, d, e] = words;
    weir_admits(a, b, c, d, e) != 0
}

/// What is not IP, or cannot be read, has no addresses and no ports: it meets no condition.
#[inline(always)]
fn admits_without_tuple() -> bool {
    FILTER.get(0).is_none_or(FilterSet::is_empty)
}

/// Copies the headers of a packet, parses them and leaves the result in the scratch memory.
///
/// A global function, which the verifier checks once and not anew for each program that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_parse(context: *mut __sk_buff, is_ip_device: u64) -> u64 {
    let link = if is_ip_device != 0 { Link::Ip } else { Link::Ethernet };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PARSED_MALFORMED };
    // SAFETY: as above.
    let Scratch { headers, parsed, .. } = unsafe { &mut *scratch };
    headers::read(Skb::new(context), link, headers, parsed)
}

/// Runs the conditions over the words of a tuple. Global like [`weir_parse`]; before 5.12 such functions take the
/// context and numbers only (e5069b9c23b3), and five at most.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_admits(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    let Some(set) = FILTER.get(0) else { return 1 };
    u64::from(set.admits(&Tuple::from_words([a, b, c, d, e])))
}

/// Puts the packet, behind the header in the scratch memory, into the ring; 0 if it is full. Global like [`weir_parse`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_record(context: *mut __sk_buff) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let header: &mut PacketHeader = unsafe { &mut (*scratch).header };
    u64::from(record::write(Skb::new(context), header))
}
