//! A byte stream that knows its offset and tells a clean end from a cut.

use std::io::{BufReader, Chain, Cursor, Read};

use super::CaptureError;

const BUFFER_BYTES: usize = 256 * 1024;

/// Reads records one after another into one buffer.
pub(super) struct Stream<R> {
    source: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    offset: u64,
    record: Vec<u8>,
}

impl<R: Read> Stream<R> {
    /// Opens the stream and also returns its first four bytes (fewer if there are no more), which are still to be read.
    pub(super) fn open(mut source: R) -> Result<(Self, Vec<u8>), CaptureError> {
        let mut start = Vec::new();
        let result = source.by_ref().take(4).read_to_end(&mut start);
        result.map_err(|source| CaptureError::Read { offset: 0, source })?;
        let whole = Cursor::new(start.clone()).chain(source);
        Ok((
            Self { source: BufReader::with_capacity(BUFFER_BYTES, whole), offset: 0, record: Vec::new() },
            start,
        ))
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads `length` bytes, or nothing if the stream ends here.
    pub(super) fn record_or_end(&mut self, length: u32) -> Result<Option<&[u8]>, CaptureError> {
        let read = self.fill(length)?;
        if read == 0 && length > 0 {
            return Ok(None);
        }
        self.whole(length).map(Some)
    }

    /// Reads `length` bytes, all of which must be there.
    pub(super) fn record(&mut self, length: u32) -> Result<&[u8], CaptureError> {
        self.fill(length)?;
        self.whole(length)
    }

    /// What was read last.
    pub(super) fn last_record(&self) -> &[u8] {
        &self.record
    }

    /// Drops the end of what was read last.
    pub(super) fn shorten_record(&mut self, length: usize) {
        self.record.truncate(length);
    }

    fn whole(&self, length: u32) -> Result<&[u8], CaptureError> {
        if self.record.len() as u64 == u64::from(length) {
            Ok(&self.record)
        } else {
            Err(CaptureError::Cut { offset: self.offset })
        }
    }

    /// The memory grows with what is there, not with what a length field claims.
    fn fill(&mut self, length: u32) -> Result<usize, CaptureError> {
        self.record.clear();
        let result = self.source.by_ref().take(u64::from(length)).read_to_end(&mut self.record);
        self.offset += self.record.len() as u64;
        result.map_err(|source| CaptureError::Read { offset: self.offset, source })
    }
}
