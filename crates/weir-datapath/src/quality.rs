//! What TCP sockets of this machine know of their way: round-trip time and retransmits.
//!
//! [`TcpQuality`] has a program at the topmost cgroup that marks connections when they begin, and collects what the
//! sockets know: of the open ones by a walk over those that are marked, of closed ones what they knew at their end.
//! Nothing runs per packet. [`Qualities`] adds it to records, joined by socket cookie.
//!
//! Only connections that begin after [`TcpQuality::attach`] are known, in any network namespace. Everything leaves
//! with the process: program and iterator are held by links.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness,
    maps::{Map, MapData, MapError, PerCpuArray},
    programs::{CgroupAttachMode, Iter, ProgramError, SockOps, sock_ops::SockOpsLink},
};
use thiserror::Error;
use weir_common::quality::{Offsets, QUALITY_WORDS};
use weir_flow::Record;
use zerocopy::{IntoBytes as _, transmute};

use crate::{
    bpf::{batch::BatchReader, iterator},
    features::mount_of_type,
    memlock, object,
    sockets::{KernelTypesError, kernel_types::KernelTypes},
};

mod index;

use self::index::Index;

const PROGRAM: &str = "weir_tcp";
const WALK: &str = "weir_tcp_walk";
/// Entries fetched at a time.
const BATCH: usize = 1024;

/// Why nothing can be known of TCP sockets here.
#[derive(Debug, Error)]
pub enum QualityError {
    /// The binary was built without kernel programs.
    #[error("this weir was built without kernel programs (WEIR_SKIP_EBPF=1)")]
    NoObject,
    /// There is nothing to attach to.
    #[error("no cgroup v2 is mounted: mount cgroup2")]
    NoCgroup,
    /// The topmost cgroup cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell where its fields are.
    #[error(transparent)]
    KernelTypes(#[from] KernelTypesError),
    /// The kernel has no such iterator.
    #[error("this kernel cannot iterate over the storage of sockets: use kernel 5.10 or newer")]
    NoIterator,
    /// The kernel's type information does not suit the loader.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// The kernel refused the object.
    #[error("cannot load the programs that watch TCP sockets")]
    Object(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("cannot load the programs that watch TCP sockets")]
    Program(#[from] ProgramError),
    /// The object lacks a part: it and the binary are not of one build.
    #[error("the kernel object has no {0}")]
    NoPart(&'static str),
    /// Another program holds the place for itself, or a privilege is missing.
    #[error("cannot attach to the cgroup at {}: needs CAP_NET_ADMIN, and no exclusive program there", path.display())]
    Refused {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: ProgramError,
    },
    /// The iterator cannot be made.
    #[error("cannot make the iterator over TCP sockets")]
    Iterator(#[source] io::Error),
    /// The sockets cannot be read.
    #[error("cannot read what TCP sockets know")]
    Read(#[source] io::Error),
    /// A counter cannot be read.
    #[error("cannot read how many closed sockets were lost")]
    Lost(#[from] MapError),
}

/// What a reading found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QualityReading {
    /// Sockets that are open.
    pub open: usize,
    /// Sockets that were closed since the last reading.
    pub closed: usize,
    /// Sockets that were closed, of which the end was not read for want of room; since attaching.
    pub lost: u64,
    /// Sockets beyond what is kept, since attaching: records of theirs have no quality.
    pub left_out: u64,
}

/// The attached program. Dropping it detaches.
pub struct TcpQuality {
    _link: SockOpsLink,
    iterator: OwnedFd,
    closed: MapData,
    lost: PerCpuArray<MapData, u64>,
    reader: BatchReader<1, QUALITY_WORDS>,
    qualities: Qualities,
    /// Keeps the maps that programs use.
    _object: Ebpf,
}

/// Adds to records what the sockets at their ends know, as of the last reading. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Qualities(Arc<Mutex<Index>>);

impl TcpQuality {
    /// Attaches to the topmost cgroup that we see, beside programs of others.
    pub fn attach() -> Result<Self, QualityError> {
        if object::QUALITY.is_empty() {
            return Err(QualityError::NoObject);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let path = mount_of_type(&mounts, "cgroup2").ok_or(QualityError::NoCgroup)?;
        let cgroup = File::open(&path).map_err(|source| QualityError::Open { path: path.clone(), source })?;
        memlock::lift();
        let types = KernelTypes::of_running_kernel()?;
        let offsets = offsets(&types)?;
        let iterator = types.function_alone("bpf_iter_bpf_sk_storage_map").ok_or(QualityError::NoIterator)?;
        drop(types);
        let btf = Btf::parse(&iterator, Endianness::default())?;
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .load(object::QUALITY)?;

        let iterator = {
            let known = object.map("KNOWN").and_then(descriptor).ok_or(QualityError::NoPart("KNOWN"))?;
            // Borrowed anew below, where the object is changed.
            known.try_clone_to_owned().map_err(QualityError::Iterator)?
        };
        let walk: &mut Iter = object.program_mut(WALK).ok_or(QualityError::NoPart(WALK))?.try_into()?;
        walk.load("bpf_sk_storage_map", &btf)?;
        let iterator =
            iterator::link(walk.fd()?.as_fd(), iterator.as_fd()).map_err(QualityError::Iterator)?;

        let Some(Map::HashMap(closed)) = object.take_map("CLOSED") else {
            return Err(QualityError::NoPart("CLOSED"));
        };
        let lost = object.take_map("LOST").ok_or(QualityError::NoPart("LOST"))?.try_into()?;
        let program: &mut SockOps =
            object.program_mut(PROGRAM).ok_or(QualityError::NoPart(PROGRAM))?.try_into()?;
        program.load()?;
        // Links stand beside programs of others by themselves (since 5.7, af6eea57437a); the mode is for attaching
        // without a link.
        let link = program
            .attach(&cgroup, CgroupAttachMode::Single)
            .map_err(|source| QualityError::Refused { path, source })?;
        let link = program.take_link(link)?;
        Ok(Self {
            _link: link,
            iterator,
            closed,
            lost,
            reader: BatchReader::new(BATCH),
            qualities: Qualities::default(),
            _object: object,
        })
    }

    /// What adds it to records.
    pub fn qualities(&self) -> Qualities {
        self.qualities.clone()
    }

    /// Collects what the sockets know now. To be called once per drain, before records of that drain are made.
    ///
    /// Takes 0.3 µs of kernel time per open socket, and as long again or longer to remember it.
    pub fn read(&mut self) -> Result<QualityReading, QualityError> {
        let mut index = self.qualities.lock();
        index.begin();
        let mut open = 0;
        let walk = iterator::start(self.iterator.as_fd()).map_err(QualityError::Read)?;
        iterator::records(walk, |record| {
            open += 1;
            index.is_open(record);
        })
        .map_err(QualityError::Read)?;
        let mut closed = 0;
        let sink = |_: &[u64; 1], words: &[u64; QUALITY_WORDS]| {
            closed += 1;
            index.is_closed(&transmute!(*words));
        };
        self.reader.drain(self.closed.fd().as_fd(), sink).map_err(QualityError::Read)?;
        index.end();
        let lost = self.lost.get(&0, 0)?.iter().sum();
        Ok(QualityReading { open, closed, lost, left_out: index.left_out() })
    }
}

impl Qualities {
    /// Adds what the sockets at the ends of records know. Retransmits are those since the last record of the same
    /// flow that was given here, so each record must come here once.
    pub fn add_to(&self, records: &mut [Record]) {
        let mut index = self.lock();
        for record in records {
            index.add_to(record);
        }
    }

    /// Waits for others that read or add. A panic among them leaves numbers that are at worst old.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offsets(types: &KernelTypes) -> Result<Offsets, KernelTypesError> {
    Ok(Offsets {
        srtt: types.offset("tcp_sock", "srtt_us")?,
        minimum_rtt: types.offset("tcp_sock", "rtt_min")?
            + types.offset("minmax", "s")?
            + types.offset("minmax_sample", "v")?,
        retransmits: types.offset("tcp_sock", "total_retrans")?,
        reserved: 0,
    })
}

/// The loader knows storage of sockets by its type only.
fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::SkStorage(data) | Map::Unsupported(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}
