//! Sockets that were open before the tap.

use std::{
    fs::File,
    io::{self, Read as _},
};

use aya::{Ebpf, programs::Iter};
use weir_common::tap::OpenedRecord;
use zerocopy::FromBytes as _;

use super::{
    error::TapError,
    load::{WALKS, program},
};

const RECORD: usize = size_of::<OpenedRecord>();
/// The kernel's own buffer holds 32 KiB, so no read yields more.
const READ: usize = 32 << 10;

/// Walks over all open files, and hands over the sockets that the rules let through.
pub(super) fn walk(object: &mut Ebpf, mut found: impl FnMut(&OpenedRecord)) -> Result<u64, TapError> {
    let [ports, open] = WALKS;
    read(start(object, ports)?, |_| {}).map_err(TapError::Walk)?;
    let mut count = 0;
    read(start(object, open)?, |record| {
        count += 1;
        found(record);
    })
    .map_err(TapError::Walk)?;
    Ok(count)
}

fn start(object: &mut Ebpf, name: &'static str) -> Result<File, TapError> {
    let refused = |source| TapError::Attach { hook: name, source };
    let program: &mut Iter = program(object, name)?;
    let link = program.attach().map_err(refused)?;
    let link = program.take_link(link).map_err(refused)?;
    link.into_file().map_err(|error| TapError::Walk(io::Error::other(error)))
}

fn read(mut iterator: File, mut visit: impl FnMut(&OpenedRecord)) -> io::Result<()> {
    let mut buffer = vec![0; READ + RECORD];
    let mut filled = 0;
    loop {
        let count = match iterator.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            // EAGAIN means that a million files in a row were no sockets.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        filled += count;
        let whole = filled - filled % RECORD;
        for record in buffer[..whole].chunks_exact(RECORD) {
            visit(&OpenedRecord::read_from_bytes(record).expect("the chunk has the size of a record"));
        }
        // A read may end within a record.
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
