//! The classic format: a header of 24 bytes, then records with a header of 16 bytes each.
//!
//! Format: draft-ietf-opsawg-pcap.

use std::io::Read;

use super::{ByteOrder, CaptureError, CaptureInterface, Frame, LONGEST_RECORD, stream::Stream};

const HEADER_BYTES: u32 = 24;
const RECORD_HEADER_BYTES: u32 = 16;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// What the file header said.
pub(super) struct State {
    order: ByteOrder,
    nanoseconds_per_unit: u64,
}

impl State {
    /// Recognises the format by its first four bytes.
    pub(super) fn from_magic(magic: &[u8]) -> Option<Self> {
        [ByteOrder::Big, ByteOrder::Little].into_iter().find_map(|order| {
            let nanoseconds_per_unit = match order.u32(magic, 0)? {
                MICROSECONDS => 1_000,
                NANOSECONDS => 1,
                _ => return None,
            };
            Some(Self { order, nanoseconds_per_unit })
        })
    }

    pub(super) fn read_header<R: Read>(
        &mut self,
        stream: &mut Stream<R>,
    ) -> Result<CaptureInterface, CaptureError> {
        let header = stream.record(HEADER_BYTES)?;
        // The upper six bits of the link type tell the length of the frame check sequence.
        let link_type = self.order.u32(header, 20).map_or(0, |word| word & 0x03ff_ffff);
        Ok(CaptureInterface { name: "if0".to_owned(), link_type })
    }

    pub(super) fn next_frame<'a, R: Read>(
        &mut self,
        stream: &'a mut Stream<R>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        let offset = stream.offset();
        let Some(header) = stream.record_or_end(RECORD_HEADER_BYTES)? else { return Ok(None) };
        let word = |index: usize| self.order.u32(header, 4 * index).unwrap_or(0);
        let [seconds, fraction, captured_length, original_length] = [word(0), word(1), word(2), word(3)];
        if captured_length > LONGEST_RECORD {
            let reason = format!("a record says that it has {captured_length} bytes");
            return Err(CaptureError::Damaged { offset, reason });
        }
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.nanoseconds_per_unit;
        let data = stream.record(captured_length)?;
        // Writers that know no original length leave it at zero.
        let original_length = original_length.max(captured_length);
        Ok(Some(Frame { interface: 0, time_ns, original_length, direction: None, data }))
    }
}
