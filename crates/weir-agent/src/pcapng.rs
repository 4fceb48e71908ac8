//! Writes pcapng files: one section, an interface for each that packets were seen at, nanoseconds.
//!
//! Format: draft-ietf-opsawg-pcapng. All numbers are little-endian, whatever the machine.

use std::io::{self, Write};

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

/// Bytes of a block in front of what it holds: its kind and its length.
const FRAME: usize = 8;

/// Bytes of the block of a packet in front of its content: the frame, then interface, time, two lengths.
const PACKET_HEADER: usize = FRAME + 20;

/// Longest text in bytes; the format ends at 65,535.
const LONGEST_TEXT: usize = 4096;

/// Where blocks are made, and go when they are whole.
pub trait Blocks {
    /// Memory for the next block, behind what is in it already. While a block is being made, nobody else may put anything there or
    /// take anything out.
    fn room(&mut self) -> &mut Vec<u8>;

    /// A block of so many bytes at the end of the room is whole.
    fn whole(&mut self, length: usize) -> io::Result<()>;
}

/// Writes each block as it is whole.
#[derive(Debug)]
pub struct BlockByBlock<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> BlockByBlock<W> {
    /// Nothing is written yet.
    pub const fn new(out: W) -> Self {
        Self { out, block: Vec::new() }
    }
}

impl<W: Write> Blocks for BlockByBlock<W> {
    fn room(&mut self) -> &mut Vec<u8> {
        &mut self.block
    }

    fn whole(&mut self, _length: usize) -> io::Result<()> {
        let written = self.out.write_all(&self.block);
        self.block.clear();
        written
    }
}

/// A pcapng file that is being written.
#[derive(Debug)]
pub struct CaptureWriter<B> {
    out: B,
    snap_length: u32,
    /// Index and name; the place is the number of the interface in the file.
    interfaces: Vec<(u32, String)>,
    /// Where in the room the block begins that is being made.
    start: usize,
}

/// One packet to write.
#[derive(Clone, Copy, Debug)]
pub struct WrittenPacket<'a> {
    /// Index of the interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: &'a str,
    /// Whether frames there begin with an Ethernet header.
    pub link: Link,
    /// Which way it went.
    pub direction: Direction,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time_ns: u64,
    /// Its length in bytes.
    pub original_length: u32,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Something to say about it; may be empty.
    pub comment: &'a str,
}

/// What to say about the whole file; empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileNotes<'a> {
    /// Name and version of the operating system.
    pub system: &'a str,
    /// Anything else.
    pub comment: &'a str,
}

/// What became of the packets of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// When it began, in nanoseconds since 1970-01-01 UTC.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Every packet that passed.
    pub seen: u64,
    /// Of these, packets that were lost for lack of room.
    pub lost: u64,
    /// Of all, packets that the filter did not reject.
    pub accepted: u64,
    /// Packets in the file.
    pub written: u64,
}

impl<W: Write> CaptureWriter<BlockByBlock<W>> {
    /// Hands everything on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.out.flush()
    }
}

impl<B: Blocks> CaptureWriter<B> {
    /// Begins a file whose packets have at most `snap_length` bytes.
    pub fn new(out: B, snap_length: u32, notes: &FileNotes<'_>) -> io::Result<Self> {
        let mut writer = Self { out, snap_length, interfaces: Vec::new(), start: 0 };
        writer.start_block();
        writer.u32(BYTE_ORDER_MAGIC);
        // Version 1.0, and a section of unknown length.
        writer.u32(1);
        writer.add(&[0xff; 8]);
        writer.text(OPTION_HARDWARE, std::env::consts::ARCH);
        writer.text(OPTION_SYSTEM, notes.system);
        writer.text(OPTION_USER_APPLICATION, concat!("weir ", env!("CARGO_PKG_VERSION")));
        writer.text(OPTION_COMMENT, notes.comment);
        writer.option(OPTION_END, &[]);
        writer.finish_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Writes a packet, and before the first of an interface a description of that.
    pub fn write(&mut self, packet: &WrittenPacket<'_>) -> io::Result<()> {
        self.begin(packet.ifindex, packet.interface, packet.link, packet.time_ns)?;
        self.add(packet.data);
        self.end(packet.direction, Some(packet.original_length), packet.comment)
    }

    /// Begins a packet; what is given to [`CaptureWriter::add`] is its content, up to [`CaptureWriter::end`].
    pub fn begin(&mut self, ifindex: u32, interface: &str, link: Link, time_ns: u64) -> io::Result<()> {
        let interface = self.interface(ifindex, interface, link)?;
        self.start_block();
        self.u32(interface);
        self.time(time_ns);
        // Both lengths, which are not known yet.
        self.add(&[0; 8]);
        Ok(())
    }

    /// Adds bytes to the packet that was begun.
    pub fn add(&mut self, bytes: &[u8]) {
        self.out.room().extend_from_slice(bytes);
    }

    /// The packet so far.
    pub fn packet(&mut self) -> &mut [u8] {
        self.block().get_mut(PACKET_HEADER..).unwrap_or_default()
    }

    /// Writes the packet that was begun. Without `original_length`, everything of it is there.
    pub fn end(
        &mut self,
        direction: Direction,
        original_length: Option<u32>,
        comment: &str,
    ) -> io::Result<()> {
        let captured = length(self.packet());
        let original = original_length.unwrap_or(captured);
        let block = self.block();
        block[PACKET_HEADER - 8..PACKET_HEADER - 4].copy_from_slice(&captured.to_le_bytes());
        block[PACKET_HEADER - 4..PACKET_HEADER].copy_from_slice(&original.to_le_bytes());
        self.pad();
        let direction: u32 = match direction {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        self.option(OPTION_PACKET_FLAGS, &direction.to_le_bytes());
        self.text(OPTION_COMMENT, comment);
        self.option(OPTION_END, &[]);
        self.finish_block(ENHANCED_PACKET)
    }

    /// Says what became of the packets of an interface, by index and name, unless no packet of it is in the file. The comment
    /// may be empty.
    pub fn statistics(
        &mut self,
        (ifindex, interface): (u32, &str),
        statistics: &Statistics,
        comment: &str,
    ) -> io::Result<()> {
        let Some(number) = self.place(ifindex, interface) else { return Ok(()) };
        self.start_block();
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
        self.text(OPTION_COMMENT, comment);
        self.option(OPTION_END, &[]);
        self.finish_block(INTERFACE_STATISTICS)
    }

    /// Where it is written to; not to be used between [`CaptureWriter::begin`] and [`CaptureWriter::end`].
    pub const fn target(&mut self) -> &mut B {
        &mut self.out
    }

    /// The number of an interface, if it is described already.
    fn place(&self, ifindex: u32, interface: &str) -> Option<u32> {
        let place =
            self.interfaces.iter().position(|(index, name)| *index == ifindex && name == interface)?;
        u32::try_from(place).ok()
    }

    fn interface(&mut self, ifindex: u32, interface: &str, link: Link) -> io::Result<u32> {
        if let Some(number) = self.place(ifindex, interface) {
            return Ok(number);
        }
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.push((ifindex, interface.to_owned()));
        let link_type: u16 = match link {
            Link::Ethernet => 1,
            Link::Ip => 101,
        };
        self.start_block();
        self.u16(link_type);
        self.u16(0);
        self.u32(self.snap_length);
        self.text(OPTION_INTERFACE_NAME, interface);
        self.option(OPTION_RESOLUTION, &[NANOSECONDS]);
        self.option(OPTION_END, &[]);
        self.finish_block(INTERFACE_DESCRIPTION)?;
        Ok(number)
    }

    /// Begins a block, with room for its frame.
    fn start_block(&mut self) {
        self.start = self.out.room().len();
        self.add(&[0; FRAME]);
    }

    /// The block that is being made.
    fn block(&mut self) -> &mut [u8] {
        self.out.room().get_mut(self.start..).unwrap_or_default()
    }

    fn u16(&mut self, value: u16) {
        self.add(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.add(&value.to_le_bytes());
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

    /// Everything is in units of four bytes.
    fn pad(&mut self) {
        let length = self.block().len();
        self.add(&[0; 4][..length.next_multiple_of(4) - length]);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.add(value);
        self.pad();
    }

    /// Puts the frame round the block, which is whole then.
    fn finish_block(&mut self, kind: u32) -> io::Result<()> {
        // The length stands at both ends.
        let block = self.block();
        let length = (length(block) + 4).to_le_bytes();
        block[..4].copy_from_slice(&kind.to_le_bytes());
        block[4..FRAME].copy_from_slice(&length);
        self.add(&length);
        let length = self.block().len();
        self.out.whole(length)
    }
}

/// A packet has at most 65,536 bytes, so a block is never longer than its length can tell.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
