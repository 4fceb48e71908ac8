//! The small file that says how far the sink has got. It is written over each time: what a death leaves of it fails its
//! checksum.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Identifier of the oldest file, and the offset up to which it was delivered.
pub(super) fn bytes(id: u64, offset: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What was written last, if it is whole. Without it, everything is brought again.
pub(super) fn read(file: &File) -> io::Result<Option<(u64, u64)>> {
    let mut found = [0; 20];
    match file.read_exact_at(&mut found, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let (numbers, _) = found.split_at(16);
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let (id, offset) = (number(&numbers[..8]), number(&numbers[8..]));
    Ok((bytes(id, offset) == found).then_some((id, offset)))
}
