//! Loading: sizes, constants, maps, programs.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, sync::Arc};

use aya::{Ebpf, EbpfLoader};
use weir_common::{
    dns::{DNS_RING_BYTES, MOST_DNS_PORTS},
    flow::{KEY_WORDS, LedgerRow, Slot},
};
use weir_flow::filter::Pushdown;

use super::{
    attach::FlowAttacher,
    clock::Clock,
    drain::FlowReader,
    packet_socket::{self, JumpTable},
    points::Points,
    shared::SharedArray,
    sizes::Sizes,
};
use crate::{
    attach::{AttachBy, PointTable, TC_PROGRAMS},
    cpus,
    dns::DnsReader,
    instance::Instance,
    memlock,
    object::{self, LoadError, take},
};

/// Least slots of a CPU: two pairs, so that there is something to choose.
const LEAST_SLOTS: u32 = 4;

/// Where packets are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// TC ingress and egress.
    #[default]
    Tc,
    /// AF_PACKET sockets: egress behind the qdisc, ingress before TC.
    Socket,
}

/// How to count.
#[derive(Clone, Debug)]
pub struct FlowOptions {
    /// Bytes for slots, overflow maps and the table in user space together.
    pub memory_bytes: u64,
    /// Interfaces that are expected, for the size of the ledger.
    pub interfaces: u32,
    /// Where to look.
    pub hook: Hook,
    /// How TC programs are attached.
    pub attach_by: AttachBy,
    /// With [`Hook::Socket`]: ask the devices for packets to others as well.
    pub promiscuous: bool,
    /// What new flows must meet; an empty one lets everything through.
    pub filter: Pushdown,
    /// Ports whose packets are read as DNS messages, besides being counted: [`FlowOptions::MOST_DNS_PORTS`] at most, the
    /// rest is left out. None at all switches that off.
    pub dns_ports: Vec<u16>,
    /// Name of the network namespace for the observation points, if it is not our own.
    pub netns: Option<Arc<str>>,
    /// Other slots for each CPU than planned, a power of two; for tests and benchmarks.
    pub slots: Option<u32>,
    /// Other entries of the overflow maps at the start than planned; for tests and benchmarks.
    pub overflow: Option<u32>,
}

impl FlowOptions {
    /// Most ports of DNS.
    pub const MOST_DNS_PORTS: usize = MOST_DNS_PORTS;
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            interfaces: 8,
            hook: Hook::Tc,
            attach_by: AttachBy::Best,
            promiscuous: false,
            filter: Pushdown::default(),
            dns_ports: Vec::new(),
            netns: None,
            slots: None,
            overflow: None,
        }
    }
}

/// Loads the counting programs and makes their maps. Takes 10 to 200 ms; attaches nothing yet.
pub fn load(options: &FlowOptions) -> Result<(FlowAttacher, FlowReader), LoadError> {
    if object::FLOW.is_empty() {
        return Err(LoadError::NoObject);
    }
    memlock::lift();
    let cpus = cpus::highest_possible().map_err(LoadError::Cpus)? + 1;
    let mut sizes = Sizes::plan(options.memory_bytes, cpus, options.interfaces);
    sizes.slots = options.slots.unwrap_or(sizes.slots).max(LEAST_SLOTS);
    sizes.overflow = options.overflow.unwrap_or(sizes.overflow).min(sizes.most_overflow);

    let mut ebpf = load_object(&sizes, options)?;
    let programs: &[&'static str] = match options.hook {
        Hook::Tc => &TC_PROGRAMS,
        Hook::Socket => &packet_socket::PROGRAMS,
    };
    object::load_programs(&mut ebpf, programs)?;
    let jumps = match options.hook {
        Hook::Tc => None,
        Hook::Socket => Some(JumpTable::fill(&mut ebpf)?),
    };
    let slots = share::<Slot>(&mut ebpf, "SLOTS", sizes.slot_entries())?;
    let ledger = share::<LedgerRow>(&mut ebpf, "LEDGER", sizes.ledger_entries())?;
    let table = PointTable::new(take(&mut ebpf, "POINTS")?)
        .map_err(|source| LoadError::Map { name: "POINTS", source })?;
    let clock = Clock::calibrate(&mut ebpf)?;
    let points = Points::new(sizes.rows, options.netns.as_ref());

    let has_dns = dns_ports(&options.dns_ports)[0] != 0;
    let dns = if has_dns { Some(DnsReader::new(&mut ebpf, points.clone())?) } else { None };
    let reader = FlowReader::new(&mut ebpf, sizes, slots, ledger, clock, points.clone(), &options.filter)?;
    let reader = reader.with_dns(dns);
    let attacher = FlowAttacher::new(ebpf, jumps, table, points, Instance::claim()?, options);
    Ok((attacher, reader))
}

fn load_object(sizes: &Sizes, options: &FlowOptions) -> Result<Ebpf, LoadError> {
    let random = RandomState::new();
    let seed: [u64; KEY_WORDS] = std::array::from_fn(|word| random.hash_one(word) | 1);
    let tc_hook = u32::from(options.hook == Hook::Tc);
    let pairs = sizes.slots / 2;
    let pair_shift = u64::BITS - pairs.ilog2();
    let dns_ports = dns_ports(&options.dns_ports);
    let has_dns = dns_ports[0] != 0;
    let ebpf = EbpfLoader::new()
        .override_global("PAIRS", &pairs, true)
        .override_global("PAIR_SHIFT", &pair_shift, true)
        .override_global("TC_HOOK", &tc_hook, true)
        .override_global("DNS_PORTS", &dns_ports, true)
        .override_global("ROWS", &sizes.rows, true)
        .override_global("SEED", &seed, true)
        .map_max_entries("SLOTS", sizes.slot_entries() / 2)
        .map_max_entries("LEDGER", sizes.ledger_entries())
        // Without messages a page, which is the least there is.
        .map_max_entries("EVENTS", if has_dns { DNS_RING_BYTES } else { 1 })
        .load(object::FLOW)?;
    Ok(ebpf)
}

/// The ports as the program has them: those there are, then zeros.
fn dns_ports(wanted: &[u16]) -> [u16; MOST_DNS_PORTS] {
    let mut ports = [0; MOST_DNS_PORTS];
    let wanted = wanted.iter().filter(|port| **port != 0);
    ports.iter_mut().zip(wanted).for_each(|(place, port)| *place = *port);
    ports
}

fn share<T: zerocopy::FromBytes + Copy>(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: u32,
) -> Result<SharedArray<T>, LoadError> {
    let map = take(ebpf, name)?;
    SharedArray::new(&map, entries).map_err(|source| LoadError::Share { name, source })
}
