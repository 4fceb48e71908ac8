//! Loading and attaching: the programs of a tier.

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{MapData, PerCpuArray},
    programs::{Iter, ProgramError},
};
use weir_common::tap::{COUNT_WORDS, SIDE_WORDS};
use zerocopy::IntoBytes as _;

use super::{
    error::TapError,
    hooks, places,
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

/// Least and most bytes of the ring for control records, a quarter of the other one. A connection takes 520 bytes at each
/// end that is tapped.
const EVENTS: (u32, u32) = (4 << 20, 16 << 20);

/// Walks over open files.
pub(super) const WALKS: [&str; 2] = ["weir_tap_ports", "weir_tap_open"];

/// Everything that a tap works with.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    pub(super) tables: Tables,
    pub(super) reader: Reader,
    pub(super) counts: PerCpuArray<MapData, [u64; COUNT_WORDS]>,
    pub(super) sides: PerCpuArray<MapData, [u64; SIDE_WORDS]>,
    /// What does not work here, and why.
    pub(super) without: Vec<String>,
    /// Whether sockets can be found that are open already.
    pub(super) has_walks: bool,
}

/// Loads the object and attaches the programs of a tier.
pub(super) fn load(types: &KernelTypes, tier: Tier, settings: &Settings) -> Result<Loaded, TapError> {
    if object::TAP.is_empty() {
        return Err(LoadError::NoObject.into());
    }
    memlock::lift();
    let ring_bytes = settings.ring.clamp(RING.0, RING.1).next_power_of_two();
    let event_bytes = (ring_bytes / 4).clamp(EVENTS.0, EVENTS.1);
    let settings = Settings { ring: ring_bytes, ..*settings };
    let places = places::find(types, tier, &settings)?;
    let hooks = hooks::of_tier(types, tier, &settings)?;
    let [mut functions, tracepoints] = hooks::names(&hooks);
    functions.push("bpf_iter_task_file");
    let alone = types.hooks_alone(&functions, &tracepoints).ok_or(TapError::Types)?;
    let btf = Btf::parse(&alone, Endianness::default())?;
    let mut object = EbpfLoader::new()
        .btf(None)
        .override_global("PLACES", places.as_bytes(), true)
        .map_max_entries("RING", ring_bytes)
        .map_max_entries("EVENTS", event_bytes)
        .map_max_entries("SOCKET_TABLE", if places.table == 0 { 1 } else { settings.connections.max(1) })
        .load(object::TAP)?;
    let tables = Tables::new(&mut object)?;
    let data = Ring::new(take(&mut object, "RING")?, ring_bytes).map_err(TapError::Ring)?;
    let events = Ring::new(take(&mut object, "EVENTS")?, event_bytes).map_err(TapError::Ring)?;
    let reader =
        Reader::new(data, events, map(&mut object, "ASLEEP")?, places.wake).map_err(TapError::Ring)?;
    let counts = map(&mut object, "COUNTS")?;
    let sides = map(&mut object, "RULE_SIDES")?;
    for hook in &hooks {
        hooks::attach(&mut object, &btf, hook)?;
    }
    let mut without = Vec::new();
    let peers = match tier {
        Tier::Sockets | Tier::Functions | Tier::Probes => hooks::attach_peers(&mut object),
        // The process has been told when the system call ends.
        Tier::Syscalls => Ok(()),
    };
    if let Err(why) = peers {
        without.push(format!("senders of datagrams that sockets without another end receive: {why}"));
    }
    if settings.unix && matches!(tier, Tier::Functions | Tier::Probes) {
        without.push(format!("Unix sockets: tier {tier}"));
    }
    let walks = load_walks(&mut object, &btf);
    let has_walks = walks.is_ok();
    if let Err(source) = walks {
        let error = TapError::Attach { hook: "the iterator over open files", source };
        without.push(format!("sockets that are open already, until they move bytes: {}", error.chain()));
    }
    Ok(Loaded { object, tables, reader, counts, sides, without, has_walks })
}

fn load_walks(object: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
    for name in WALKS {
        let program: &mut Iter = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load("task_file", btf)?;
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
