//! Who opened which socket, noted by the kernel at that moment: names sockets that live shorter than the time between
//! two walks.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::{CgroupAttachMode, CgroupSock, ProgramError, cgroup_sock::CgroupSockLink},
};
use thiserror::Error;
use weir_common::sockets::{PROCESS_WORDS, ProcessRecord};
use zerocopy::transmute;

use super::open::Holder;
use crate::{bpf::batch::BatchReader, features::mount_of_type};

const PROGRAM: &str = "weir_opened";
const MAP: &str = "OPENED";
/// Entries fetched at a time.
const BATCH: usize = 1024;

/// Why short-lived sockets are not named.
#[derive(Debug, Error)]
pub enum OpeningsError {
    /// There is nothing to attach to.
    #[error("no cgroup v2 is mounted: mount cgroup2")]
    NoCgroup,
    /// The root of the hierarchy cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object lacks a part: it and the binary are not of one build.
    #[error("the kernel object has no {0}")]
    NoPart(&'static str),
    /// The kernel refused.
    #[error("cannot attach to the cgroup at {}", path.display())]
    Refused {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: ProgramError,
    },
}

/// The attached program. Dropping it detaches.
#[derive(Debug)]
pub(crate) struct Openings {
    _link: CgroupSockLink,
    map: MapData,
    reader: BatchReader<1, PROCESS_WORDS>,
}

impl Openings {
    /// Attaches to the topmost cgroup that we see. A walk must have ended before.
    pub(crate) fn attach(object: &mut Ebpf) -> Result<Self, OpeningsError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let path = mount_of_type(&mounts, "cgroup2").ok_or(OpeningsError::NoCgroup)?;
        let cgroup =
            File::open(&path).map_err(|source| OpeningsError::Open { path: path.clone(), source })?;
        let Some(Map::LruHashMap(map)) = object.take_map(MAP) else { return Err(OpeningsError::NoPart(MAP)) };
        let link = Self::link(object, &cgroup)
            .ok_or(OpeningsError::NoPart(PROGRAM))?
            .map_err(|source| OpeningsError::Refused { path, source })?;
        Ok(Self { _link: link, map, reader: BatchReader::new(BATCH) })
    }

    fn link(object: &mut Ebpf, cgroup: &File) -> Option<Result<CgroupSockLink, ProgramError>> {
        let program: &mut CgroupSock = object.program_mut(PROGRAM)?.try_into().ok()?;
        // Links stand beside those of others by themselves; the mode for that is for attaching without a link.
        let attach = |program: &mut CgroupSock| {
            program.load()?;
            let link = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(link)
        };
        Some(attach(program))
    }

    /// Takes out what was noted since the last call: cookies and who opened these sockets.
    pub(crate) fn take(&mut self) -> io::Result<Vec<(u64, Holder)>> {
        let mut taken = Vec::new();
        self.reader.drain(self.map.fd().as_fd(), |[cookie], words| {
            let record: ProcessRecord = transmute!(*words);
            taken.push((*cookie, Holder::from(&record)));
        })?;
        Ok(taken)
    }
}
