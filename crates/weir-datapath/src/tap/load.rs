//! Loading and attaching: the programs of a tier.

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{MapData, PerCpuArray},
    programs::{BtfTracePoint, Iter, ProgramError},
};
use weir_common::tap::{COUNT_WORDS, SIDE_WORDS};
use zerocopy::IntoBytes as _;

use super::{
    error::TapError,
    places::{self, WAKE},
    read::Reader,
    ring::Ring,
    settings::{Settings, Tier},
    tables::{Tables, map},
};
use crate::{
    memlock,
    object::{self, LoadError, take},
    sockets::kernel_types::KernelTypes,
};

/// Least and most bytes of the ring.
const RING: (u32, u32) = (64 << 10, 1 << 30);

/// Bytes of the ring for control records: at ten thousand connections a second, it holds those of half a second.
const EVENTS: u32 = 4 << 20;

/// Tracepoints that connections are followed by, whatever the tier.
const CONNECTIONS: [(&str, &str); 2] =
    [("weir_tap_state", "inet_sock_set_state"), ("weir_tap_gone", "tcp_destroy_sock")];

/// Those of the first tier.
const SOCKETS: [(&str, &str); 2] =
    [("weir_tap_sent", "sock_send_length"), ("weir_tap_received", "sock_recv_length")];

/// Walks over open files.
pub(super) const WALKS: [&str; 2] = ["weir_tap_ports", "weir_tap_open"];

/// Everything that a tap works with.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    pub(super) tables: Tables,
    pub(super) reader: Reader,
    pub(super) counts: PerCpuArray<MapData, [u64; COUNT_WORDS]>,
    pub(super) sides: PerCpuArray<MapData, [u64; SIDE_WORDS]>,
    /// Why existing sockets are not found, if they are not.
    pub(super) walk: Result<(), ProgramError>,
}

/// Loads the object and attaches the programs of a tier.
pub(super) fn load(types: &KernelTypes, tier: Tier, settings: &Settings) -> Result<Loaded, TapError> {
    if object::TAP.is_empty() {
        return Err(LoadError::NoObject.into());
    }
    memlock::lift();
    let ring_bytes = settings.ring.clamp(RING.0, RING.1).next_power_of_two();
    let settings = Settings { ring: ring_bytes, ..*settings };
    let places = places::find(types, &settings)?;
    let hooks = tracepoints(types, tier)?;
    let names: Vec<_> = hooks.iter().map(|(_, hook)| *hook).collect();
    let alone = types
        .hooks_alone(&["bpf_iter_task_file"], &names)
        .ok_or(TapError::NoHook("type information that the loader understands"))?;
    let btf = Btf::parse(&alone, Endianness::default())?;
    let mut object = EbpfLoader::new()
        .btf(None)
        .override_global("PLACES", places.as_bytes(), true)
        .map_max_entries("RING", ring_bytes)
        .map_max_entries("EVENTS", EVENTS)
        .load(object::TAP)?;
    let tables = Tables::new(&mut object)?;
    let data = Ring::new(take(&mut object, "RING")?, ring_bytes).map_err(TapError::Ring)?;
    let events = Ring::new(take(&mut object, "EVENTS")?, EVENTS).map_err(TapError::Ring)?;
    let reader = Reader::new(data, events, WAKE.min(ring_bytes / 4)).map_err(TapError::Ring)?;
    let counts = map(&mut object, "COUNTS")?;
    let sides = map(&mut object, "RULE_SIDES")?;
    for (program, hook) in hooks {
        let program: &mut BtfTracePoint = self::program(&mut object, program)?;
        program.load(hook, &btf).map_err(|source| TapError::Attach { hook, source })?;
        program.attach().map_err(|source| TapError::Attach { hook, source })?;
    }
    let walk = load_walks(&mut object, &btf);
    Ok(Loaded { object, tables, reader, counts, sides, walk })
}

/// Programs and tracepoints of a tier, if the kernel has them.
fn tracepoints(types: &KernelTypes, tier: Tier) -> Result<Vec<(&'static str, &'static str)>, TapError> {
    let own: &[_] = match tier {
        Tier::Sockets => &SOCKETS,
        Tier::Functions | Tier::Probes | Tier::Syscalls => {
            return Err(TapError::NoHook("hooks of that kind that weir knows"));
        }
    };
    let hooks: Vec<_> = CONNECTIONS.iter().chain(own).copied().collect();
    match hooks.iter().find(|(_, hook)| !types.has_tracepoint(hook)) {
        Some((_, hook)) => Err(TapError::NoHook(hook)),
        None => Ok(hooks),
    }
}

fn load_walks(object: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
    for name in WALKS {
        let program: &mut Iter = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load("task_file", btf)?;
    }
    Ok(())
}

/// Takes all programs off their hooks.
pub(super) fn detach(object: &mut Ebpf) -> Result<(), TapError> {
    for (name, _) in CONNECTIONS.into_iter().chain(SOCKETS) {
        let program: &mut BtfTracePoint = program(object, name)?;
        match program.unload() {
            Ok(()) | Err(ProgramError::NotLoaded) => {}
            Err(source) => return Err(TapError::Attach { hook: name, source }),
        }
    }
    Ok(())
}

/// A program of the object.
pub(super) fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, TapError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = object.program_mut(name).ok_or(LoadError::NoProgram)?;
    program.try_into().map_err(|source| TapError::Attach { hook: name, source })
}
