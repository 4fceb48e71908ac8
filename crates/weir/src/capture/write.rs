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
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_PACKET_FLAGS: u16 = 2;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_USER_APPLICATION: u16 = 4;
const OPTION_RESOLUTION: u16 = 9;

const NANOSECONDS: u8 = 9;

/// Longest comment in bytes; the format ends at 65,535.
const LONGEST_COMMENT: usize = 4096;

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

impl<W: Write> CaptureWriter<W> {
    /// Begins a file whose packets have at most `snap_length` bytes.
    pub(crate) fn new(out: W, snap_length: u32) -> io::Result<Self> {
        let mut writer = Self { out, snap_length, interfaces: HashMap::new(), block: Vec::new() };
        writer.u32(BYTE_ORDER_MAGIC);
        // Version 1.0, and a section of unknown length.
        writer.u32(1);
        writer.block.extend([0xff; 8]);
        writer.option(OPTION_USER_APPLICATION, concat!("weir ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.option(OPTION_END, &[]);
        writer.finish_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Writes a packet, and before the first of an interface a description of that.
    pub(crate) fn write(&mut self, packet: &WrittenPacket<'_>) -> io::Result<()> {
        let interface = self.interface(packet)?;
        self.u32(interface);
        self.u32((packet.time_ns >> 32) as u32);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        self.u32(packet.time_ns as u32);
        self.u32(length(packet.data));
        self.u32(packet.original_length);
        self.padded(packet.data);
        let direction: u32 = match packet.direction {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        self.option(OPTION_PACKET_FLAGS, &direction.to_le_bytes());
        if !packet.comment.is_empty() {
            let end = packet.comment.floor_char_boundary(LONGEST_COMMENT);
            self.option(OPTION_COMMENT, &packet.comment.as_bytes()[..end]);
        }
        self.option(OPTION_END, &[]);
        self.finish_block(ENHANCED_PACKET)
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
        self.option(OPTION_INTERFACE_NAME, packet.interface.as_bytes());
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
        let mut writer = CaptureWriter::new(&mut file, 128).unwrap();
        for packet in [&packet, &raw, &packet] {
            writer.write(packet).unwrap();
        }
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
}
