//! The compiled kernel objects, embedded in the binary, and what loading any of them has in common.

use std::{io, thread};

use aya::{
    Ebpf, EbpfError, include_bytes_aligned,
    maps::{Map, MapError},
    programs::{Program, ProgramError},
};

use crate::{flow::ClockError, instance::InstanceError};

/// The counting programs (`weir-ebpf/src/flow`).
pub(crate) static FLOW: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flow"));

/// The capturing programs (`weir-ebpf/src/packets`).
pub(crate) static PACKETS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/packets"));

/// The walk over open sockets (`weir-ebpf/src/sockets`).
pub(crate) static SOCKETS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets"));

/// The programs that watch TCP sockets (`weir-ebpf/src/quality`).
pub(crate) static QUALITY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/quality"));

/// The program that counts dropped packets (`weir-ebpf/src/drops`).
pub(crate) static DROPS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/drops"));

/// The redirecting programs (`weir-ebpf/src/redirect`).
pub(crate) static REDIRECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirect"));

/// The programs that copy what processes send and receive (`weir-ebpf/src/tap`).
pub(crate) static TAP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tap"));

/// Why kernel programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The binary was built without kernel programs.
    #[error("this weir was built without kernel programs (WEIR_SKIP_EBPF=1): build it without that variable")]
    NoObject,
    /// The kernel refused the object.
    #[error("cannot load the kernel programs")]
    Object(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("cannot load the kernel program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The object lacks a program: it and the binary are not of one build.
    #[error("the kernel object lacks a program")]
    NoProgram,
    /// Programs are loaded on threads of their own.
    #[error("cannot start a thread to load a kernel program")]
    Thread(#[source] io::Error),
    /// The object lacks a map: it and the binary are not of one build.
    #[error("the kernel object has no map {0}")]
    NoMap(&'static str),
    /// A map cannot be used.
    #[error("cannot set up the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map cannot be mapped into our memory.
    #[error("cannot map the map {name} into memory")]
    Share {
        /// Its name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The numbers of CPUs cannot be read.
    #[error("cannot find out how many CPUs there may be")]
    Cpus(#[source] io::Error),
    /// The kernel's clock cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// This Weir cannot be told from others.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl LoadError {
    /// Whether the kernel refused for want of a privilege.
    pub fn is_permission(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
            }
            source = error.source();
        }
        false
    }
}

/// What a loaded program costs, for `weir doctor -v`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked through (since 5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub machine_code_bytes: u32,
}

/// What the loaded programs of an object cost.
pub(crate) fn costs(ebpf: &Ebpf) -> Vec<ProgramCost> {
    let mut costs = Vec::new();
    for (name, program) in ebpf.programs() {
        let info = match program {
            Program::SchedClassifier(program) => program.info(),
            Program::SocketFilter(program) => program.info(),
            _ => continue,
        };
        // Not all programs of an object are loaded.
        if let Ok(info) = info {
            costs.push(ProgramCost {
                name: name.to_owned(),
                verified_instructions: info.verified_instruction_count(),
                machine_code_bytes: info.size_jitted(),
            });
        }
    }
    costs
}

/// Loads programs of an object, side by side: the kernel's verifier takes tens of milliseconds for each.
pub(crate) fn load_programs(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), LoadError> {
    thread::scope(|scope| {
        let mut loads = Vec::with_capacity(names.len());
        for (name, program) in ebpf.programs_mut() {
            let Some(&name) = names.iter().find(|wanted| **wanted == name) else { continue };
            let thread = thread::Builder::new().spawn_scoped(scope, move || load_program(name, program));
            loads.push(thread.map_err(LoadError::Thread)?);
        }
        if loads.len() < names.len() {
            return Err(LoadError::NoProgram);
        }
        loads.into_iter().try_for_each(|load| load.join().expect("loading does not panic"))
    })
}

fn load_program(name: &'static str, program: &mut Program) -> Result<(), LoadError> {
    let loaded = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::SocketFilter(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|source| LoadError::Program { name, source })
}

/// Takes a map out of an object.
pub(crate) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::NoMap(name))
}
