//! What is compared: Weir as it ships, and two references that differ from it in the table alone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, Map, MapData, PerCpuHashMap},
};
use weir_common::flow::{FlowValue, GENERATIONS, KEY_WORDS, LedgerRow, VALUE_WORDS};
use weir_datapath::flow::{self, Device, Directions, FlowAttacher, FlowOptions, FlowReader, Sizes};
use weir_flow::{Direction, Observation, Point, Role};
use weir_packet::Link;

use crate::stage::{Stage, check_object, program};

static HASH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench_hash"));
static LRU: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench_lru"));

/// Index of the loopback interface, whose packets a test run pretends to carry.
const LOOPBACK: u32 = 1;

/// Interfaces that the ledger has room for: 400 rows and more.
const INTERFACES: u32 = 100;

/// Weir, loaded as it ships.
pub(crate) struct Weir {
    attacher: FlowAttacher,
    /// Reads what was counted.
    pub(crate) reader: FlowReader,
    /// The observation points of the loopback interface.
    pub(crate) points: Vec<std::sync::Arc<Point>>,
}

impl Weir {
    /// Loads it and lists the loopback interface of the namespace that the caller is in, which must be private.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let options = FlowOptions { interfaces: INTERFACES, ..FlowOptions::default() };
        let (mut attacher, reader) = flow::load(&options)?;
        let device =
            Device { index: LOOPBACK, name: "lo".into(), link: Link::Ethernet, role: Role::Loopback };
        let points = attacher.attach(&device, Directions::Both, false)?.points;
        Ok(Self { attacher, reader, points })
    }

    /// The program that counts what an Ethernet device receives.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.attacher.program(Direction::Ingress, Link::Ethernet).expect("the programs are loaded")
    }

    /// Lets the table grow until it holds all flows that the stage plays.
    pub(crate) fn grow(&mut self, stage: &mut Stage, packets: u32) -> anyhow::Result<()> {
        let mut calm = 0;
        for _ in 0..32 {
            stage.run(self.program(), packets)?;
            let mut lost = 0;
            let drained = self.reader.drain(|_| ())?;
            for (_, ledger) in &drained.ledgers {
                lost += ledger.overflow.packets;
            }
            ensure!(drained.table.resize_error.is_none(), "{:?}", drained.table);
            calm = if lost == 0 && !drained.table.is_growing() { calm + 1 } else { 0 };
            // Each generation has a map of its own.
            if calm == 4 {
                return Ok(());
            }
        }
        bail!("the table does not grow enough")
    }

    /// Drains, and makes sure that exactly `packets` were counted since the last time, in the ledger and by flow.
    pub(crate) fn drain(&mut self, packets: u64, sink: &mut dyn FnMut(&Observation)) -> anyhow::Result<()> {
        let mut counted = 0;
        let drained = self.reader.drain(|observation| {
            counted += observation.traffic.packets;
            sink(observation);
        })?;
        let seen: u64 = drained.ledgers.iter().map(|(_, ledger)| ledger.seen.packets).sum();
        ensure!(
            seen == packets && counted == packets,
            "{packets} packets were sent, the ledger has {seen}, all flows together {counted}"
        );
        Ok(())
    }
}

enum Table {
    Hash(HashMap<MapData, [u64; KEY_WORDS], [u64; VALUE_WORDS]>),
    Lru(PerCpuHashMap<MapData, [u64; KEY_WORDS], [u64; VALUE_WORDS + 2]>),
}

/// Another design.
pub(crate) struct Reference {
    program: OwnedFd,
    table: Table,
    _object: Ebpf,
}

impl Reference {
    /// One hash map, atomic counters, jiffies.
    pub(crate) fn hash(sizes: &Sizes) -> anyhow::Result<Self> {
        let (object, program, map) = load(HASH, "weir_bench_hash", sizes)?;
        Ok(Self { program, table: Table::Hash(map.try_into()?), _object: object })
    }

    /// LRU hash map for each CPU, fine clock.
    pub(crate) fn lru(sizes: &Sizes) -> anyhow::Result<Self> {
        let (object, program, map) = load(LRU, "weir_bench_lru", sizes)?;
        Ok(Self { program, table: Table::Lru(map.try_into()?), _object: object })
    }

    /// The program that counts what an Ethernet device receives.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Empties the table and returns how many packets it had.
    pub(crate) fn clear(&mut self) -> anyhow::Result<u64> {
        let mut packets = 0;
        match &mut self.table {
            Table::Hash(map) => {
                for key in map.keys().collect::<Result<Vec<_>, _>>()? {
                    packets += packets_of(&map.get(&key, 0)?);
                    map.remove(&key)?;
                }
            }
            Table::Lru(map) => {
                for key in map.keys().collect::<Result<Vec<_>, _>>()? {
                    packets += map.get(&key, 0)?.iter().map(|words| packets_of(words)).sum::<u64>();
                    map.remove(&key)?;
                }
            }
        }
        Ok(packets)
    }
}

/// The number of packets in an entry.
fn packets_of(words: &[u64]) -> u64 {
    const WORD: usize = std::mem::offset_of!(FlowValue, packets) / 8;
    const SHIFT: usize = std::mem::offset_of!(FlowValue, packets) % 8 * 8;
    words[WORD] >> SHIFT & u64::from(u32::MAX)
}

fn load(object: &'static [u8], name: &'static str, sizes: &Sizes) -> anyhow::Result<(Ebpf, OwnedFd, Map)> {
    check_object(object)?;
    let mut ebpf = EbpfLoader::new()
        .override_global("ROWS", &sizes.rows, true)
        .override_global("TC_HOOK", &1u32, true)
        .map_max_entries("LEDGER", GENERATIONS * sizes.cpus * sizes.rows)
        .load(object)?;
    let program = program(&mut ebpf, name)?;
    let mut points: Array<_, [u32; 2]> = ebpf.map_mut("POINTS").context("POINTS")?.try_into()?;
    // The first listed interface, whose row is 2.
    points.set(LOOPBACK, [LOOPBACK, 2], 0)?;
    let map = ebpf.take_map("FLOWS").context("FLOWS")?;
    Ok((ebpf, program, map))
}

const _: () = assert!(size_of::<LedgerRow>() == 128, "one row fills two cache lines in all designs");
