//! Writes pcapng files: one section, an interface for each that packets were seen at, nanoseconds.
//!
//! Format: draft-ietf-opsawg-pcapng. All numbers are little-endian, whatever the machine.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use weir_flow::Direction;
use weir_packet::Link;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_PACKET_FLAGS: u16 = 2;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_HARDWARE: u16 = 2;
const OPTION_SYSTEM: u16 = 3;
const OPTION_USER_APPLICATION: u16 = 4;
const OPTION_STATISTICS_START: u16 = 2;
const OPTION_STATISTICS_END: u16 = 3;
const OPTION_RECEIVED: u16 = 4;
const OPTION_DROPPED: u16 = 5;
const OPTION_ACCEPTED: u16 = 6;
const OPTION_DELIVERED: u16 = 8;
const OPTION_RESOLUTION: u16 = 9;

const NANOSECONDS: u8 = 9;

/// Longest text in bytes; the format ends at 65,535.
const LONGEST_TEXT: usize = 4096;

/// A pcapng file that is being written.
pub(crate) struct CaptureWriter<W> {
    out: W,
    snap_length: u32,
    interfaces: HashMap<(u32, String), u32>,
    block: Vec<u8>,
}

/// One packet to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenPacket<'a> {
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// Its name.
    pub(crate) interface: &'a str,
    /// Whether frames there begin with an Ethernet header.
    pub(crate) link: Link,
    /// Which way it went.
    pub(crate) direction: Direction,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(crate) time_ns: u64,
    /// Its length in bytes.
    pub(crate) original_length: u32,
    /// What was captured of it.
    pub(crate) data: &'a [u8],
    /// Something to say about it; may be empty.
    pub(crate) comment: &'a str,
}

/// What to say about the whole file; empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileNotes<'a> {
    /// Name and version of the operating system.
    pub(crate) system: &'a str,
    /// Anything else.
    pub(crate) comment: &'a str,
}

/// What became of the packets of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// When it began, in nanoseconds since 1970-01-01 UTC.
    pub(crate) start_ns: u64,
    /// When it ended.
    pub(crate) end_ns: u64,
    /// Every packet that passed.
    pub(crate) seen: u64,
    /// Of these, packets that were lost for lack of room.
    pub(crate) lost: u64,
    /// Of all, packets that the filter did not reject.
    pub(crate) accepted: u64,
    /// Packets in the file.
    pub(crate) written: u64,
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a file whose packets have at most `snap_length` bytes.
    pub(crate) fn new(out: W, snap_length: u32, notes: &FileNotes<'_>) -> io::Result<Self> {
        let mut writer = Self { out, snap_length, interfaces: HashMap::new(), block: Vec::new() };
        writer.u32(BYTE_ORDER_MAGIC);
        // Version 1.0, and a section of unknown length.
        writer.u32(1);
        writer.block.extend([0xff; 8]);
        writer.text(OPTION_HARDWARE, std::env::consts::ARCH);
        writer.text(OPTION_SYSTEM, notes.system);
        writer.text(OPTION_USER_APPLICATION, concat!("weir ", env!("CARGO_PKG_VERSION")));
        writer.text(OPTION_COMMENT, notes.comment);
        writer.option(OPTION_END, &[]);
        writer.finish_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Writes a packet, and before the first of an interface a description of that.
    pub(crate) fn write(&mut self, packet: &WrittenPacket<'_>) -> io::Result<()> {
        let interface = self.interface(packet)?;
        self.u32(interface);
        self.time(packet.time_ns);
        self.u32(length(packet.data));
        self.u32(packet.original_length);
        self.padded(packet.data);
        let direction: u32 = match packet.direction {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        self.option(OPTION_PACKET_FLAGS, &direction.to_le_bytes());
        self.text(OPTION_COMMENT, packet.comment);
        self.option(OPTION_END, &[]);
        self.finish_block(ENHANCED_PACKET)
    }

    /// Says what became of the packets of an interface, by index and name, unless no packet of it is in the file.
    pub(crate) fn statistics(
        &mut self,
        (ifindex, interface): (u32, &str),
        statistics: &Statistics,
    ) -> io::Result<()> {
        let Some(number) = self.interfaces.get(&(ifindex, interface.to_owned())).copied() else {
            return Ok(());
        };
        self.u32(number);
        self.time(statistics.end_ns);
        for (code, time_ns) in
            [(OPTION_STATISTICS_START, statistics.start_ns), (OPTION_STATISTICS_END, statistics.end_ns)]
        {
            self.u16(code);
            self.u16(8);
            self.time(time_ns);
        }
        for (code, count) in [
            (OPTION_RECEIVED, statistics.seen),
            (OPTION_DROPPED, statistics.lost),
            (OPTION_ACCEPTED, statistics.accepted),
            (OPTION_DELIVERED, statistics.written),
        ] {
            self.option(code, &count.to_le_bytes());
        }
        self.option(OPTION_END, &[]);
        self.finish_block(INTERFACE_STATISTICS)
    }

    /// Hands everything on.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn interface(&mut self, packet: &WrittenPacket<'_>) -> io::Result<u32> {
        let key = (packet.ifindex, packet.interface.to_owned());
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.insert(key, number);
        let link_type: u16 = match packet.link {
            Link::Ethernet => 1,
            Link::Ip => 101,
        };
        self.u16(link_type);
        self.u16(0);
        self.u32(self.snap_length);
        self.text(OPTION_INTERFACE_NAME, packet.interface);
        self.option(OPTION_RESOLUTION, &[NANOSECONDS]);
        self.option(OPTION_END, &[]);
        self.finish_block(INTERFACE_DESCRIPTION)?;
        Ok(number)
    }

    fn u16(&mut self, value: u16) {
        self.block.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    /// A time takes two numbers, the upper half first.
    #[expect(clippy::cast_possible_truncation, reason = "halves are wanted")]
    fn time(&mut self, time_ns: u64) {
        self.u32((time_ns >> 32) as u32);
        self.u32(time_ns as u32);
    }

    /// Adds a text, unless it is empty.
    fn text(&mut self, code: u16, text: &str) {
        if !text.is_empty() {
            self.option(code, &text.as_bytes()[..text.floor_char_boundary(LONGEST_TEXT)]);
        }
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.block.extend(&[0; 3][..padding]);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.padded(value);
    }

    /// Puts the frame round the block, writes it, begins the next.
    fn finish_block(&mut self, kind: u32) -> io::Result<()> {
        let length = (length(&self.block) + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&length)?;
        self.block.clear();
        Ok(())
    }
}

/// A packet has at most 65,536 bytes, so a block is never longer than its length can tell.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;

    #[test]
    fn what_is_written_reads_back() {
        let packet = WrittenPacket {
            ifindex: 7,
            interface: "eth0",
            link: Link::Ethernet,
            direction: Direction::Egress,
            time_ns: 1_700_000_000_123_456_789,
            original_length: 1514,
            data: b"seven b",
            comment: "curl (4711) → nginx",
        };
        let raw = WrittenPacket {
            ifindex: 8,
            interface: "tun0",
            link: Link::Ip,
            direction: Direction::Ingress,
            comment: "",
            ..packet
        };
        let mut file = Vec::new();
        let mut writer = CaptureWriter::new(&mut file, 128, &FileNotes::default()).unwrap();
        for packet in [&packet, &raw, &packet] {
            writer.write(packet).unwrap();
        }
        writer.statistics((8, "tun0"), &Statistics::default()).unwrap();
        writer.statistics((9, "not in the file"), &Statistics::default()).unwrap();
        writer.flush().unwrap();

        let mut capture = Capture::open(&file[..]).unwrap();
        for (expected, number, link_type) in [(&packet, 0, 1), (&raw, 1, 101), (&packet, 0, 1)] {
            let (frame, interface) = capture.next_frame().unwrap().unwrap();
            assert_eq!(frame.interface, number);
            assert_eq!((interface.name.as_str(), interface.link_type), (expected.interface, link_type));
            assert_eq!(frame.time_ns, expected.time_ns);
            assert_eq!(frame.original_length, expected.original_length);
            assert_eq!(frame.direction, Some(expected.direction));
            assert_eq!(frame.data, expected.data);
        }
        assert!(capture.next_frame().unwrap().is_none());
    }
    #[test]
    fn statistics_are_laid_out_as_the_format_says() {
        let mut file = Vec::new();
        let mut writer = CaptureWriter::new(&mut file, 128, &FileNotes::default()).unwrap();
        let data = [0; 60];
        let packet = WrittenPacket {
            ifindex: 7,
            interface: "eth0",
            link: Link::Ethernet,
            direction: Direction::Egress,
            time_ns: 1,
            original_length: 60,
            data: &data,
            comment: &"é".repeat(4000),
        };
        writer.write(&packet).unwrap();
        let (start_ns, end_ns) = (0x1_0000_0002, 0x3_0000_0004);
        let counts = Statistics { start_ns, end_ns, seen: 10, lost: 2, accepted: 9, written: 7 };
        writer.statistics((7, "eth0"), &counts).unwrap();
        let words: Vec<u32> =
            file.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let option = |code: u32| code | 8 << 16;
        #[rustfmt::skip]
        let expected = [
            5, 100, 0, 3, 4,
            option(2), 1, 2, option(3), 3, 4,
            option(4), 10, 0, option(5), 2, 0, option(6), 9, 0, option(8), 7, 0,
            0, 100,
        ];
        assert_eq!(words[words.len() - expected.len()..], expected);
    }
}
