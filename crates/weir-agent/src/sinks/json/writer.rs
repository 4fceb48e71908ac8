//! [`JsonWriter`]: encodes batches and hands the lines to a destination.
//!
//! Delivered means handed to the kernel. When a connection breaks, the next one begins with the line that was cut.

use std::io::{self, ErrorKind, Write as _};

use weir_flow::format::json_line;

use super::{Plan, file::RotatedFile, stream::Stream};
use crate::outlet::{Consumer, Parcel, Patience, Receipt, WriteError};

/// Bytes handed over at a time, so that a deadline is noticed in between.
const PIECE: usize = 256 << 10;

/// Writes lines of JSON.
pub struct JsonWriter {
    destination: Destination,
    /// The lines of the parcels that are being written.
    text: String,
    /// Bytes of them that the kernel has.
    written: usize,
    /// Whether some are under way.
    is_under_way: bool,
}

enum Destination {
    Stdout(io::Stdout),
    File(RotatedFile),
    Stream(Stream),
}

impl JsonWriter {
    /// Opens nothing yet: the first batch does.
    pub fn new(plan: &Plan) -> Self {
        let destination = match plan {
            Plan::Stdout => Destination::Stdout(io::stdout()),
            Plan::File { path, rotate_size, rotate_keep } => {
                Destination::File(RotatedFile::new(path.clone(), *rotate_size, *rotate_keep))
            }
            Plan::Unix(path) => Destination::Stream(Stream::unix(path.clone())),
            Plan::Tcp(peer) => Destination::Stream(Stream::tcp(peer.clone())),
        };
        Self { destination, text: String::new(), written: 0, is_under_way: false }
    }

    fn write_some(&mut self, patience: &Patience) -> io::Result<usize> {
        let rest = &self.text.as_bytes()[self.written..];
        let piece = &rest[..rest.len().min(PIECE)];
        match &mut self.destination {
            Destination::Stdout(stdout) => {
                stdout.write_all(piece)?;
                stdout.flush()?;
                Ok(piece.len())
            }
            Destination::File(file) => file.write(piece, patience),
            Destination::Stream(stream) => stream.write(piece, patience),
        }
    }

    /// After a broken connection, goes back to where the line begins that was cut. A file goes on where it ended.
    fn rewind_to_line(&mut self) {
        if !matches!(self.destination, Destination::Stream(_)) {
            return;
        }
        let line = self.text[..self.written].rfind('\n').map_or(0, |end| end + 1);
        self.written = line;
    }
}

impl Consumer for JsonWriter {
    fn write(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<Receipt, WriteError> {
        if !self.is_under_way {
            self.text.clear();
            for record in parcels.iter().flat_map(|parcel| &parcel.batch.records) {
                json_line(record, &mut self.text);
            }
            (self.written, self.is_under_way) = (0, true);
        }
        while self.written < self.text.len() {
            match self.write_some(patience) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.rewind_to_line();
                    }
                    return Err(WriteError::Retry(error.into()));
                }
            }
        }
        self.is_under_way = false;
        if let Destination::File(file) = &mut self.destination {
            // Between batches, so that every file holds whole lines.
            file.rotate_if_due();
        }
        // The room of an unusual batch is not held for ever.
        self.text.clear();
        self.text.shrink_to(PIECE);
        Ok(Receipt::default())
    }
}
