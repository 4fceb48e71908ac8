//! One captured packet, and the counters that say what became of all of them.

use std::{ops::AddAssign, sync::Arc};

use weir_common::packets::{KIND_IP, KIND_NON_IP, PacketHeader, PacketRow, ROW_WORDS};
use weir_flow::{Count, Monotonic, Point, SocketOwner, Tuple, Wall};
use weir_packet::{Headers, Link, Parsed};
use zerocopy::FromBytes as _;

/// Bytes of the addresses in an Ethernet header, behind which tags are.
const ADDRESS_BYTES: usize = 12;

/// Bytes of a VLAN tag.
const TAG_BYTES: u32 = 4;

/// A captured packet. What the kernel hands over may be a super-packet, which is many frames on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it was seen.
    pub point: &'a Arc<Point>,
    /// Whether `frame` starts with an Ethernet header.
    pub link: Link,
    /// When, on the monotonic clock.
    pub time: Monotonic,
    /// When, on the wall clock.
    pub wall: Wall,
    /// The socket of its sender, where the kernel knew it.
    pub owner: SocketOwner,
    /// What its headers say; they were read in the kernel, whatever the snap length.
    pub parsed: Parsed,
    /// Frames on the wire: more than one for a super-packet.
    pub segments: u32,
    /// Bytes of all of them on the wire.
    pub wire_bytes: u64,
    /// Its length in bytes, VLAN tag included: that of the frame, if it is not a super-packet.
    pub length: u32,
    /// Its first bytes, at most the snap length, with the VLAN tag in its place.
    pub frame: &'a [u8],
}

impl Packet<'_> {
    /// Whether it stands for several frames on the wire.
    pub const fn is_super(&self) -> bool {
        self.segments > 1
    }

    /// Whether there is more of it than was captured.
    pub const fn is_cut(&self) -> bool {
        self.frame.len() < self.length as usize
    }
}

/// A record of the ring buffer, taken apart.
pub(super) struct Record<'a> {
    pub(super) header: PacketHeader,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record; `None` if it is shorter than it says, which no program writes.
    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let (header, bytes) = PacketHeader::read_from_prefix(record).ok()?;
        let bytes = bytes.get(..header.captured as usize)?;
        Some(Self { header, bytes })
    }

    /// What the headers of the packet say.
    pub(super) fn parsed(&self) -> Parsed {
        let header = &self.header;
        match header.kind {
            KIND_IP => Parsed::Ip(Headers {
                tuple: Tuple::from_words(header.tuple),
                header_length: header.header_length,
                tcp_flags: header.tcp_flags,
                dscp: header.dscp,
                ttl: header.ttl,
            }),
            KIND_NON_IP => Parsed::NonIp { ethertype: header.ethertype },
            _ => Parsed::Malformed,
        }
    }

    /// Length of the packet with its tag.
    pub(super) fn length(&self) -> u32 {
        let tag = if self.header.vlan_ethertype == 0 { 0 } else { TAG_BYTES };
        self.header.length + tag
    }

    /// The bytes as they are on the wire, at most `snap_length`: a tag that the hardware strips or inserts is put back in
    /// its place, with the help of `buffer`.
    pub(super) fn frame<'b>(&self, link: Link, snap_length: usize, buffer: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let header = &self.header;
        let tagged = header.vlan_ethertype != 0 && link == Link::Ethernet;
        let Some((addresses, rest)) = self.bytes.split_at_checked(ADDRESS_BYTES) else { return self.bytes };
        if !tagged {
            return self.bytes;
        }
        buffer.clear();
        buffer.extend_from_slice(addresses);
        buffer.extend_from_slice(&header.vlan_ethertype.to_be_bytes());
        buffer.extend_from_slice(&header.vlan_tag.to_be_bytes());
        buffer.extend_from_slice(rest);
        buffer.truncate(snap_length);
        buffer
    }
}

/// What became of the packets of an observation point: `seen` is the sum of `filtered`, `lost` and `written`.
///
/// Packets are counted as the kernel hands them over (a super-packet is one), bytes are their lengths with VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketLedger {
    /// Every packet that passed.
    pub seen: Count,
    /// Rejected by the filter.
    pub filtered: Count,
    /// No room in the ring buffer.
    pub lost: Count,
    /// Handed over.
    pub written: Count,
    /// Of these, longer than what was captured of them.
    pub cut: Count,
}

impl PacketLedger {
    /// Whether the identity holds.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.seen == self.filtered + self.lost + self.written
    }
}

impl AddAssign for PacketLedger {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.filtered += other.filtered;
        self.lost += other.lost;
        self.written += other.written;
        self.cut += other.cut;
    }
}

/// A row of the kernel's ledger, as the words that it is read in.
pub(super) fn ledger(words: [u64; ROW_WORDS]) -> PacketLedger {
    let row: PacketRow = zerocopy::transmute!(words);
    let count = |count: weir_common::flow::Count| Count { packets: count.packets, bytes: count.bytes };
    PacketLedger {
        seen: count(row.seen),
        filtered: count(row.filtered),
        lost: count(row.lost),
        written: count(row.written),
        cut: count(row.cut),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::packets::HEADER_WORDS;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(header: PacketHeader, bytes: &[u8]) -> Vec<u8> {
        let header = PacketHeader { captured: u32::try_from(bytes.len()).unwrap(), ..header };
        [header.as_bytes(), bytes, &[0xee; 16]].concat()
    }

    #[test]
    fn a_tag_that_the_hardware_stripped_is_put_back() {
        let bytes: Vec<u8> = (0..20).collect();
        let header =
            PacketHeader { length: 60, vlan_ethertype: 0x88a8, vlan_tag: 0x2064, ..PacketHeader::default() };
        let memory = record(header, &bytes);
        let record = Record::read(&memory).unwrap();
        let mut buffer = Vec::new();
        let frame = record.frame(Link::Ethernet, 22, &mut buffer);
        assert_eq!(frame, [&bytes[..12], &[0x88, 0xa8, 0x20, 0x64], &bytes[12..18]].concat());
        assert_eq!(record.length(), 64);
    }

    #[test]
    fn bytes_behind_the_captured_ones_are_never_shown() {
        let memory = record(PacketHeader::default(), &[1, 2, 3]);
        let record = Record::read(&memory).unwrap();
        assert_eq!(record.frame(Link::Ip, 128, &mut Vec::new()), [1, 2, 3]);
    }

    #[test]
    fn a_record_shorter_than_it_says_is_refused() {
        let memory = record(PacketHeader::default(), &[1, 2, 3]);
        assert!(Record::read(&memory[..HEADER_WORDS * 8 + 2]).is_none());
        assert!(Record::read(&memory[..HEADER_WORDS * 8 - 1]).is_none());
    }
}
