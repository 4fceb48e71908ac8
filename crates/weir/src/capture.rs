//! Reads capture files, pcap (microseconds and nanoseconds, both byte orders) and pcapng.
//!
//! Takes any byte stream, front to back, and yields one [`Frame`] per record. What is in the file is believed only
//! as far as it can be checked: lengths are bounded, unknown blocks and options are skipped, and a file that ends or
//! contradicts itself in the middle of a record gives an error with the byte offset, after all records before it.
//! Frames are not parsed here, and compressed files are refused with a hint.

mod link;
mod pcap;
mod pcapng;
mod stream;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod written;

use std::{fmt, io};

use thiserror::Error;
use weir_flow::Direction;

pub(crate) use self::link::LinkType;
use self::stream::Stream;

/// Longest record that is believed, in bytes; what libpcap allows for its largest link type.
const LONGEST_RECORD: u32 = 128 * 1024 * 1024;

/// One record of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Number of its interface in the file.
    pub(crate) interface: usize,
    /// Nanoseconds since 1970-01-01 UTC; the time of the record before where this one has none.
    pub(crate) time_ns: u64,
    /// Length on the wire in bytes.
    pub(crate) original_length: u32,
    /// Whether it was received or sent, where the file says so.
    pub(crate) direction: Option<Direction>,
    /// What was captured of it, from the link-layer header on.
    pub(crate) data: &'a [u8],
}

/// An interface that the file describes. Numbers run through all sections of a pcapng file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptureInterface {
    /// Its name, or `if` and its number.
    pub(crate) name: String,
    /// How frames begin; a number of tcpdump's registry of link-layer header types.
    pub(crate) link_type: u32,
}

/// Why a capture cannot be read (any further). Offsets are in bytes from the start of the file.
#[derive(Debug, Error)]
pub(crate) enum CaptureError {
    /// The first bytes are those of no format that is known.
    #[error("not a capture file: it begins with {0}; pcap and pcapng can be read")]
    UnknownFormat(FirstBytes),
    /// The first bytes are those of a compressed file.
    #[error("is compressed with {program}; unpack it first: {program} -dc FILE | weir replay -")]
    Compressed {
        /// The program that unpacks it.
        program: &'static str,
    },
    /// Nothing there.
    #[error("not a capture file: it is empty")]
    Empty,
    /// The file ends in the middle of a record.
    #[error("capture is cut short at byte {offset}")]
    Cut {
        /// Where the file ends.
        offset: u64,
    },
    /// The record contradicts itself.
    #[error("capture is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read the capture at byte {offset}")]
    Read {
        /// How far it could be read.
        offset: u64,
        /// Why not further.
        source: io::Error,
    },
}

/// The start of a file that could not be recognised.
#[derive(Debug)]
pub(crate) struct FirstBytes(Vec<u8>);

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Byte order of the numbers in a file or section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Big,
    Little,
}

impl ByteOrder {
    /// Reads the number at `offset`, or `None` where `bytes` ends before.
    fn u32(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let raw = bytes.get(offset..offset.checked_add(4)?)?.first_chunk()?;
        Some(match self {
            Self::Big => u32::from_be_bytes(*raw),
            Self::Little => u32::from_le_bytes(*raw),
        })
    }

    /// Reads the number at `offset`, or `None` where `bytes` ends before.
    fn u16(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let raw = bytes.get(offset..offset.checked_add(2)?)?.first_chunk()?;
        Some(match self {
            Self::Big => u16::from_be_bytes(*raw),
            Self::Little => u16::from_le_bytes(*raw),
        })
    }

    /// Reads the number at the start of `bytes`, or `None` where they are fewer than eight.
    fn i64(self, bytes: &[u8]) -> Option<i64> {
        let raw = bytes.first_chunk()?;
        Some(match self {
            Self::Big => i64::from_be_bytes(*raw),
            Self::Little => i64::from_le_bytes(*raw),
        })
    }
}

/// An open capture.
pub(crate) struct Capture<R> {
    stream: Stream<R>,
    format: Format,
    interfaces: Vec<CaptureInterface>,
}

enum Format {
    Pcap(pcap::State),
    Pcapng(pcapng::State),
}

impl<R: io::Read> Capture<R> {
    /// Reads the head of the file and finds out its format.
    pub(crate) fn open(source: R) -> Result<Self, CaptureError> {
        let (mut stream, start) = Stream::open(source)?;
        let mut interfaces = Vec::new();
        let format = match start[..] {
            [] => return Err(CaptureError::Empty),
            [0x0a, 0x0d, 0x0d, 0x0a] => Format::Pcapng(pcapng::State::default()),
            [0x1f, 0x8b, ..] => return Err(CaptureError::Compressed { program: "gzip" }),
            [0x28, 0xb5, 0x2f, 0xfd] => return Err(CaptureError::Compressed { program: "zstd" }),
            [0xfd, b'7', b'z', b'X'] => return Err(CaptureError::Compressed { program: "xz" }),
            _ => match pcap::State::from_magic(&start) {
                Some(mut state) => {
                    interfaces.push(state.read_header(&mut stream)?);
                    Format::Pcap(state)
                }
                None => return Err(CaptureError::UnknownFormat(FirstBytes(start))),
            },
        };
        Ok(Self { stream, format, interfaces })
    }

    /// Interfaces that were described so far; they grow while a pcapng file is read.
    #[cfg(test)]
    pub(crate) fn interfaces(&self) -> &[CaptureInterface] {
        &self.interfaces
    }

    /// How many bytes of the file were read.
    pub(crate) fn offset(&self) -> u64 {
        self.stream.offset()
    }

    /// The next frame and its interface, or `None` at the end of the file. After an error, there is nothing more to be
    /// had.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Frame<'_>, &CaptureInterface)>, CaptureError> {
        let frame = match &mut self.format {
            Format::Pcap(state) => state.next_frame(&mut self.stream)?,
            Format::Pcapng(state) => state.next_frame(&mut self.stream, &mut self.interfaces)?,
        };
        Ok(frame.and_then(|frame| Some((frame, self.interfaces.get(frame.interface)?))))
    }
}
