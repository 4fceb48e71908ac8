//! The newer format: sections of blocks, several interfaces, each with its own link type and clock resolution.
//!
//! Format: draft-ietf-opsawg-pcapng.

use std::io::Read;

use weir_flow::Direction;

use super::{ByteOrder, CaptureError, CaptureInterface, Frame, LONGEST_RECORD, stream::Stream};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Type and length in front, length again at the end.
const FRAMING_BYTES: u32 = 12;

const OPTION_END: u16 = 0;
const OPTION_NAME: u16 = 2;
const OPTION_PACKET_FLAGS: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// Where we are in the file.
#[derive(Default)]
pub(super) struct State {
    section: Option<Section>,
    time_ns: u64,
}

struct Section {
    order: ByteOrder,
    /// Number of the section's first interface in the file.
    base: usize,
    clocks: Vec<Clock>,
}

/// How an interface stamps its packets.
#[derive(Clone, Copy)]
struct Clock {
    /// `if_tsresol`: negative power of ten, or of two if the top bit is set.
    resolution: u8,
    /// `if_tsoffset`, seconds.
    offset_seconds: i64,
    snap_length: u32,
}

impl Clock {
    /// Nanoseconds since 1970 of a timestamp in this clock's units; the nearest that fits where it does not.
    fn nanoseconds(&self, units: u64) -> u64 {
        let units = u128::from(units);
        let exponent = u32::from(self.resolution & 0x7f);
        let since_offset = if self.resolution & 0x80 != 0 {
            (units * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            units * 10_u128.pow(9 - exponent)
        } else {
            10_u128.checked_pow(exponent - 9).map_or(0, |divisor| units / divisor)
        };
        let since_offset = i128::try_from(since_offset).unwrap_or(i128::MAX);
        let total = since_offset.saturating_add(i128::from(self.offset_seconds) * 1_000_000_000);
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }
}

/// Fields of a packet block, and where its bytes are in the block's body.
struct PacketFields {
    interface: usize,
    time_ns: u64,
    original_length: u32,
    direction: Option<Direction>,
    data: std::ops::Range<usize>,
}

impl State {
    pub(super) fn next_frame<'a, R: Read>(
        &mut self,
        stream: &'a mut Stream<R>,
        interfaces: &mut Vec<CaptureInterface>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        loop {
            let offset = stream.offset();
            let damaged = |reason: &str| CaptureError::Damaged { offset, reason: reason.to_owned() };
            let Some(kind) = self.read_block(stream, interfaces.len())? else { return Ok(None) };
            let Some(section) = &mut self.section else { return Err(damaged("a block before any section")) };
            let body = stream.last_record();
            let fields = match kind {
                INTERFACE_DESCRIPTION => {
                    let interface = section.describe(body, interfaces.len());
                    interfaces
                        .push(interface.ok_or_else(|| damaged("an interface description is too short"))?);
                    continue;
                }
                ENHANCED_PACKET => section.enhanced(body),
                OBSOLETE_PACKET => section.obsolete(body),
                SIMPLE_PACKET => section.simple(body, self.time_ns),
                _ => continue,
            };
            let fields = fields.map_err(damaged)?;
            self.time_ns = fields.time_ns;
            return Ok(Some(Frame {
                interface: fields.interface,
                time_ns: fields.time_ns,
                original_length: fields.original_length,
                direction: fields.direction,
                data: stream.last_record().get(fields.data).unwrap_or_default(),
            }));
        }
    }

    /// Reads a block and returns its type; its body is the stream's last record. `None` at the end of the file.
    /// A section header opens the section and leaves no body.
    fn read_block<R: Read>(
        &mut self,
        stream: &mut Stream<R>,
        interfaces: usize,
    ) -> Result<Option<u32>, CaptureError> {
        let offset = stream.offset();
        let damaged = |reason: String| CaptureError::Damaged { offset, reason };
        let Some(head) = stream.record_or_end(8)? else { return Ok(None) };
        let raw_length = [head[4], head[5], head[6], head[7]];
        // The type of a section header reads the same both ways, because only its body tells the byte order.
        let is_section = ByteOrder::Big.u32(head, 0) == Some(SECTION_HEADER);
        let kind = match &self.section {
            _ if is_section => SECTION_HEADER,
            Some(section) => section.order.u32(head, 0).unwrap_or(0),
            None => return Err(damaged("a block before any section".to_owned())),
        };
        if is_section {
            let magic = stream.record(4)?;
            let order = [ByteOrder::Big, ByteOrder::Little]
                .into_iter()
                .find(|order| order.u32(magic, 0) == Some(BYTE_ORDER_MAGIC))
                .ok_or_else(|| damaged("a section without a byte order".to_owned()))?;
            self.section = Some(Section { order, base: interfaces, clocks: Vec::new() });
        }
        let Some(section) = &self.section else { return Ok(None) };
        let length = section.order.u32(&raw_length, 0).unwrap_or(0);
        let read = if is_section { FRAMING_BYTES } else { 8 };
        // Some writers forget to pad; readers agree on rounding up.
        let padded = length.checked_next_multiple_of(4).unwrap_or(u32::MAX);
        if length < read + 4 || padded > LONGEST_RECORD {
            return Err(damaged(format!("a block says that it has {length} bytes")));
        }
        // Everything that is left of the block, its trailing length included.
        let rest = stream.record(padded - read)?;
        let body_length = rest.len() - 4;
        if section.order.u32(rest, body_length) != Some(length) {
            return Err(damaged("a block whose two lengths differ".to_owned()));
        }
        stream.shorten_record(if is_section { 0 } else { body_length });
        Ok(Some(kind))
    }
}

impl Section {
    /// Reads an interface description block.
    fn describe(&mut self, body: &[u8], number: usize) -> Option<CaptureInterface> {
        let link_type = u32::from(self.order.u16(body, 0)?);
        let mut clock = Clock { resolution: 6, offset_seconds: 0, snap_length: self.order.u32(body, 4)? };
        let mut name = format!("if{number}");
        let options = Options { order: self.order, rest: body.get(8..)? };
        for (code, value) in options {
            match (code, value) {
                (OPTION_NAME, [_, ..]) => name = String::from_utf8_lossy(value).into_owned(),
                (OPTION_RESOLUTION, [resolution, ..]) => clock.resolution = *resolution,
                (OPTION_OFFSET, _) => clock.offset_seconds = self.order.i64(value).unwrap_or(0),
                _ => {}
            }
        }
        self.clocks.push(clock);
        Some(CaptureInterface { name, link_type })
    }

    fn enhanced(&self, body: &[u8]) -> Result<PacketFields, &'static str> {
        let interface = self.order.u32(body, 0).ok_or(TOO_SHORT)?;
        let mut fields = self.stamped(body, interface)?;
        let options = body.get(fields.data.end.next_multiple_of(4)..).unwrap_or_default();
        fields.direction = Options { order: self.order, rest: options }
            .find(|(code, _)| *code == OPTION_PACKET_FLAGS)
            .and_then(|(_, value)| match self.order.u32(value, 0)? & 3 {
                1 => Some(Direction::Ingress),
                2 => Some(Direction::Egress),
                _ => None,
            });
        Ok(fields)
    }

    /// The predecessor of the enhanced packet block differs in the first word alone, as far as we read it.
    fn obsolete(&self, body: &[u8]) -> Result<PacketFields, &'static str> {
        self.stamped(body, u32::from(self.order.u16(body, 0).ok_or(TOO_SHORT)?))
    }

    fn stamped(&self, body: &[u8], interface: u32) -> Result<PacketFields, &'static str> {
        let word = |index: usize| self.order.u32(body, 4 * index).ok_or(TOO_SHORT);
        let clock = self.clocks.get(interface as usize).ok_or(UNKNOWN_INTERFACE)?;
        let time_ns = clock.nanoseconds(u64::from(word(1)?) << 32 | u64::from(word(2)?));
        let (captured_length, original_length) = (word(3)?, word(4)?);
        let data = 20..20 + captured_length as usize;
        if data.end > body.len() {
            return Err("a packet that is longer than its block");
        }
        Ok(PacketFields {
            interface: self.base + interface as usize,
            time_ns,
            original_length: original_length.max(captured_length),
            direction: None,
            data,
        })
    }

    /// A simple packet block belongs to the first interface and has no time.
    fn simple(&self, body: &[u8], time_ns: u64) -> Result<PacketFields, &'static str> {
        let original_length = self.order.u32(body, 0).ok_or(TOO_SHORT)?;
        let clock = self.clocks.first().ok_or(UNKNOWN_INTERFACE)?;
        let limit = if clock.snap_length == 0 { u32::MAX } else { clock.snap_length };
        let captured_length = original_length.min(limit) as usize;
        let data = 4..4 + captured_length.min(body.len() - 4);
        Ok(PacketFields { interface: self.base, time_ns, original_length, direction: None, data })
    }
}

const TOO_SHORT: &str = "a packet block is too short";
const UNKNOWN_INTERFACE: &str = "a packet of an interface that was not described";

/// The options of a block: code and value. Ends quietly where they are cut.
struct Options<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let code = self.order.u16(self.rest, 0).filter(|code| *code != OPTION_END)?;
        let length = usize::from(self.order.u16(self.rest, 2)?);
        let value = self.rest.get(4..4 + length)?;
        self.rest = self.rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}
