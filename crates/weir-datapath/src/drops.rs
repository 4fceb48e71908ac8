//! Packets that the kernel drops, by its own reason, in every network namespace.
//!
//! [`Drops`] holds a program on the tracepoint `skb:kfree_skb`; names of reasons are those of the running kernel. Counts
//! begin with [`Drops::attach`] and only grow. What is counted are packets as the kernel handles them: a super-packet is
//! one. Packets that end as they should are not among them, nor is what never was a packet of a network protocol.
//!
//! The program leaves with the process.

use std::{collections::BTreeMap, io, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapData, MapError, PerCpuArray, PerCpuHashMap},
    programs::{ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink},
};
use thiserror::Error;
use weir_common::drops::{DROP_KEY_WORDS, DROP_REASONS, DROP_VALUE_WORDS, DropKey, DropValue, Settings};
use zerocopy::{IntoBytes as _, transmute};

use crate::{
    bpf, memlock, object,
    sockets::{KernelTypesError, kernel_types::KernelTypes},
};

mod reasons;

use self::reasons::Reasons;

const PROGRAM: &str = "weir_dropped";
const TRACEPOINT: &str = "kfree_skb";

/// Why drops cannot be counted here.
#[derive(Debug, Error)]
pub enum DropsError {
    /// The binary was built without kernel programs.
    #[error("this weir was built without kernel programs (WEIR_SKIP_EBPF=1)")]
    NoObject,
    /// The kernel does not describe itself.
    #[error(transparent)]
    KernelTypes(#[from] KernelTypesError),
    /// The kernel gives no reasons.
    #[error("this kernel does not say why it drops packets: use kernel 5.17 or newer")]
    NoReasons,
    /// The kernel refused the object.
    #[error("cannot load the program that counts drops")]
    Object(#[from] EbpfError),
    /// The kernel refused the program.
    #[error("cannot attach the program that counts drops: needs CAP_BPF and CAP_PERFMON")]
    Program(#[from] ProgramError),
    /// The object lacks a part: it and the binary are not of one build.
    #[error("the kernel object has no {0}")]
    NoPart(&'static str),
    /// A counter cannot be read.
    #[error("cannot read the counters of drops")]
    Read(#[from] MapError),
    /// How often the program was skipped cannot be read.
    #[error("cannot ask for the state of the program that counts drops")]
    State(#[source] io::Error),
}

/// The attached program. Dropping it detaches.
pub struct Drops {
    _link: RawTracePointLink,
    by_place: PerCpuHashMap<MapData, [u64; DROP_KEY_WORDS], [u64; DROP_VALUE_WORDS]>,
    folded: PerCpuArray<MapData, u64>,
    reasons: Reasons,
    object: Ebpf,
}

/// Packets dropped for one reason at one place, since the program was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// The kernel's name of the reason, without what all names begin with: `NO_SOCKET`.
    pub reason: Arc<str>,
    /// Where.
    pub place: DropPlace,
    /// Packets as the kernel handles them.
    pub packets: u64,
}

/// Where a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropPlace {
    /// At an interface.
    Interface {
        /// Inode number of its network namespace.
        netns: u32,
        /// Its index.
        ifindex: u32,
        /// Its name when the first packet was dropped there.
        name: Arc<str>,
    },
    /// In a network namespace (inode number), at none of its interfaces: before one was chosen, or in a socket.
    Namespace(u32),
    /// The packet no longer said.
    Unknown,
    /// At interfaces that came when 1,024 combinations of reason and place were known.
    Others,
}

/// All counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropSnapshot {
    /// By reason and place, in this order. Each only grows.
    pub counts: Vec<DropCount>,
    /// Packets that were dropped while the program was counting another one on the same CPU, for any reason.
    pub skipped: u64,
}

impl Drops {
    /// Loads and attaches the program.
    pub fn attach() -> Result<Self, DropsError> {
        if object::DROPS.is_empty() {
            return Err(DropsError::NoObject);
        }
        memlock::lift();
        let types = KernelTypes::of_running_kernel()?;
        let reasons = Reasons::of(&types).ok_or(DropsError::NoReasons)?;
        let settings = settings(&types, &reasons)?;
        drop(types);
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("SETTINGS", settings.as_bytes(), true)
            .load(object::DROPS)?;
        let by_place = object.take_map("DROPS").ok_or(DropsError::NoPart("DROPS"))?.try_into()?;
        let folded = object.take_map("FOLDED").ok_or(DropsError::NoPart("FOLDED"))?.try_into()?;
        let program: &mut RawTracePoint =
            object.program_mut(PROGRAM).ok_or(DropsError::NoPart(PROGRAM))?.try_into()?;
        program.load()?;
        let link = program.attach(TRACEPOINT)?;
        let link = program.take_link(link)?;
        Ok(Self { _link: link, by_place, folded, reasons, object })
    }

    /// Everything that was dropped so far. Takes some microseconds per combination and CPU.
    pub fn snapshot(&self) -> Result<DropSnapshot, DropsError> {
        let mut counts: BTreeMap<(Arc<str>, DropPlace), u64> = BTreeMap::new();
        for entry in &self.by_place {
            let (key, values) = entry?;
            let key: DropKey = transmute!(key);
            let values: Vec<DropValue> = values.iter().map(|words| transmute!(*words)).collect();
            let packets: u64 = values.iter().map(|value| value.packets).sum();
            *counts.entry((self.reasons.name(key.reason), place(key, &values))).or_default() += packets;
        }
        for reason in 0..u32::try_from(DROP_REASONS).expect("it is 512") {
            let packets: u64 = self.folded.get(&reason, 0)?.iter().sum();
            if packets > 0 {
                *counts.entry((self.reasons.folded_name(reason), DropPlace::Others)).or_default() += packets;
            }
        }
        let counts = counts
            .into_iter()
            .map(|((reason, place), packets)| DropCount { reason, place, packets })
            .collect();
        Ok(DropSnapshot { counts, skipped: self.skipped()? })
    }

    fn skipped(&self) -> Result<u64, DropsError> {
        let program = self.object.program(PROGRAM).ok_or(DropsError::NoPart(PROGRAM))?;
        let descriptor = program.fd()?;
        bpf::skipped_runs(descriptor.as_fd()).map_err(DropsError::State)
    }
}

fn place(key: DropKey, values: &[DropValue]) -> DropPlace {
    match key {
        DropKey { ifindex: 0, netns: 0, .. } => DropPlace::Unknown,
        DropKey { ifindex: 0, netns, .. } => DropPlace::Namespace(netns),
        DropKey { ifindex, netns, .. } => {
            let name = values.iter().find(|value| value.name[0] != 0).map_or(&[][..], |value| &value.name);
            let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            let name = String::from_utf8_lossy(&name[..length]).into();
            DropPlace::Interface { netns, ifindex, name }
        }
    }
}

fn settings(types: &KernelTypes, reasons: &Reasons) -> Result<Settings, KernelTypesError> {
    Ok(Settings {
        skb_device: types.offset("sk_buff", "dev")?,
        skb_sock: types.offset("sk_buff", "sk")?,
        skb_protocol: types.offset("sk_buff", "protocol")?,
        device_index: types.offset("net_device", "ifindex")?,
        device_name: types.offset("net_device", "name")?,
        // possible_net_t has the pointer as its only member.
        device_net: types.offset("net_device", "nd_net")?,
        sock_net: types.sock_offset("skc_net")?,
        net_inode: types.offset("net", "ns")? + types.offset("ns_common", "inum")?,
        consumed: reasons.consumed().unwrap_or(u32::MAX),
    })
}
