//! Sockets that were open before the tap.

use std::{io, os::fd::OwnedFd};

use aya::{Ebpf, programs::Iter};
use weir_common::tap::OpenedRecord;

use super::{
    error::TapError,
    load::{WALKS, program},
};
use crate::bpf::iterator;

/// Walks over all open files, and hands over the sockets that the rules let through.
pub(super) fn walk(object: &mut Ebpf, mut found: impl FnMut(&OpenedRecord)) -> Result<u64, TapError> {
    let [ports, open] = WALKS;
    iterator::records(start(object, ports)?, |_: &OpenedRecord| {}).map_err(TapError::Walk)?;
    let mut count = 0;
    iterator::records(start(object, open)?, |record| {
        count += 1;
        found(record);
    })
    .map_err(TapError::Walk)?;
    Ok(count)
}

fn start(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, TapError> {
    let refused = |source| TapError::Attach { hook: name, source };
    let program: &mut Iter = program(object, name)?;
    let link = program.attach().map_err(refused)?;
    let link = program.take_link(link).map_err(refused)?;
    let walk = link.into_file().map_err(|error| TapError::Walk(io::Error::other(error)))?;
    Ok(walk.into())
}
