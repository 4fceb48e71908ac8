//! The walk: one read from a BPF iterator lists every open socket of every process that our pid namespace shows.

use std::io;

use aya::{
    Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness,
    programs::{Iter, ProgramError, links::LinkError},
};
use thiserror::Error;
use zerocopy::IntoBytes as _;

use super::{
    kernel_types::{KernelTypes, KernelTypesError, socket_offsets},
    open::{Holder, OpenSocket},
    openings::{Openings, OpeningsError},
};
use crate::{bpf::iterator, memlock, object};

const PROGRAM: &str = "weir_sockets";

/// Why the walk does not work here.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The binary was built without kernel programs.
    #[error("this weir was built without kernel programs (WEIR_SKIP_EBPF=1)")]
    NoObject,
    /// The kernel does not tell where its fields are.
    #[error(transparent)]
    KernelTypes(#[from] KernelTypesError),
    /// The kernel has no such iterator.
    #[error("this kernel cannot iterate over open files: use kernel 5.10 or newer")]
    NoIterator,
    /// The kernel's type information does not suit the loader.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// The kernel refused the object.
    #[error("cannot load the program that lists sockets")]
    Object(#[from] EbpfError),
    /// The kernel refused the program.
    #[error("cannot load the program that lists sockets")]
    Program(#[from] ProgramError),
    /// The iterator cannot be started.
    #[error("cannot start the iterator over open files")]
    Link(#[from] LinkError),
    /// The iterator cannot be read.
    #[error("cannot read the list of sockets")]
    Read(#[from] io::Error),
}

/// The loaded program.
#[derive(Debug)]
pub(crate) struct Walk {
    openings: Result<Openings, OpeningsError>,
    object: Ebpf,
    v6only_mask: u8,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The sockets.
    pub(crate) sockets: Vec<OpenSocket>,
    /// Cookies of sockets that were opened since the last time, and by whom. They may be closed by now.
    pub(crate) opened: Vec<(u64, Holder)>,
    /// Sockets beyond the limit, which are not among them.
    pub(crate) left_out: usize,
}

impl Walk {
    /// Loads the program.
    pub(crate) fn load() -> Result<Self, WalkError> {
        if object::SOCKETS.is_empty() {
            return Err(WalkError::NoObject);
        }
        memlock::lift();
        let types = KernelTypes::of_running_kernel()?;
        let (offsets, v6only_mask) = socket_offsets(&types)?;
        let iterator = types.function_alone("bpf_iter_task_file").ok_or(WalkError::NoIterator)?;
        drop(types);
        let btf = Btf::parse(&iterator, Endianness::default())?;
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .load(object::SOCKETS)?;
        program(&mut object)?.load("task_file", &btf)?;
        // The first walk shows whether it works, and prepares the other program.
        walk(&mut object, v6only_mask)?;
        let openings = Openings::attach(&mut object);
        Ok(Self { openings, object, v6only_mask })
    }

    /// Why openings are not noted, if they are not.
    pub(crate) fn openings_error(&self) -> Option<&OpeningsError> {
        self.openings.as_ref().err()
    }

    /// Lists the sockets as they are now, and those that were opened since the last time.
    pub(crate) fn sockets(&mut self) -> Result<Found, WalkError> {
        let mut found = walk(&mut self.object, self.v6only_mask)?;
        if let Ok(openings) = &mut self.openings {
            found.opened = openings.take()?;
        }
        Ok(found)
    }
}

fn walk(object: &mut Ebpf, v6only_mask: u8) -> Result<Found, WalkError> {
    let program = program(object)?;
    let link = program.attach()?;
    let walk = program.take_link(link)?.into_file()?;
    let mut found = Found::default();
    iterator::records(walk.into(), |record| {
        if let Some(socket) = OpenSocket::from_record(record, v6only_mask) {
            found.add(socket);
        }
    })?;
    Ok(found)
}

fn program(object: &mut Ebpf) -> Result<&mut Iter, WalkError> {
    let program = object.program_mut(PROGRAM).ok_or(WalkError::NoObject)?;
    Ok(program.try_into()?)
}
