//! Loading: sizes, constants, maps, programs.

use std::sync::Arc;

use aya::{EbpfLoader, maps::RingBuf};
use weir_common::packets::{MOST_SNAP_LENGTH, SNAP_CLASSES};
use weir_flow::filter::Pushdown;

use super::{attach::PacketAttacher, points::Points, reader::PacketReader};
use crate::{
    attach::{AttachBy, PointTable, TC_PROGRAMS, TcAttacher},
    conditions,
    grace::Grace,
    instance::Instance,
    memlock,
    object::{self, LoadError, take},
};

/// Least bytes of a ring buffer: one page.
const LEAST_RING: u32 = 4096;

/// Most bytes of a ring buffer; the kernel's own limit is 4 GiB.
const MOST_RING: u32 = 1 << 30;

/// Rows of the ledger: two for each interface that is ever attached, and two for those that nobody listed.
const ROWS: u32 = 2048;

/// How to capture.
#[derive(Clone, Debug)]
pub struct PacketOptions {
    /// Bytes to keep of each packet, 1 to 65,536.
    pub snap_length: u32,
    /// Bytes of the ring buffer; rounded up to a power of two, one page at least.
    pub ring_bytes: u32,
    /// How programs are attached.
    pub attach_by: AttachBy,
    /// What packets must meet; an empty one lets everything through. With any condition, packets that are not IP or
    /// cannot be read do not pass.
    pub filter: Pushdown,
    /// Name of the network namespace for the observation points, if it is not our own.
    pub netns: Option<Arc<str>>,
}

impl PacketOptions {
    /// Options for a snap length, with a ring buffer that holds a few thousand such packets.
    #[must_use]
    pub fn with_snap_length(snap_length: u32) -> Self {
        let ring_bytes = if snap_length <= 1024 { 8 << 20 } else { 32 << 20 };
        Self { snap_length, ring_bytes, ..Self::default() }
    }
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self {
            snap_length: 128,
            ring_bytes: 8 << 20,
            attach_by: AttachBy::Best,
            filter: Pushdown::default(),
            netns: None,
        }
    }
}

/// Loads the capturing programs and makes their maps. Takes 10 to 100 ms; attaches nothing yet.
pub fn load(options: &PacketOptions) -> Result<(PacketAttacher, PacketReader), LoadError> {
    if object::PACKETS.is_empty() {
        return Err(LoadError::NoObject);
    }
    memlock::lift();
    let snap_length = options.snap_length.clamp(1, MOST_SNAP_LENGTH);
    let ring_bytes = options.ring_bytes.clamp(LEAST_RING, MOST_RING).next_power_of_two();
    let mut ebpf = EbpfLoader::new()
        .override_global("SNAP_LENGTH", &snap_length, true)
        .map_max_entries("RING", ring_bytes)
        .map_max_entries("LEDGER", ROWS)
        .load(object::PACKETS)?;
    object::load_programs(&mut ebpf, &TC_PROGRAMS)?;
    let map = |name| move |source| LoadError::Map { name, source };
    let mut filter: aya::maps::Array<_, [u64; conditions::FILTER_WORDS]> =
        take(&mut ebpf, "FILTER")?.try_into().map_err(map("FILTER"))?;
    filter.set(0, conditions::words(&options.filter), 0).map_err(map("FILTER"))?;
    let ring = RingBuf::try_from(take(&mut ebpf, "RING")?).map_err(map("RING"))?;
    let ledger = take(&mut ebpf, "LEDGER")?.try_into().map_err(map("LEDGER"))?;
    let grace = Grace::new(take(&mut ebpf, "GRACE")?).map_err(map("GRACE"))?;
    let table = PointTable::new(take(&mut ebpf, "POINTS")?).map_err(map("POINTS"))?;
    let points = Points::new(ROWS, options.netns.clone());
    let reader = PacketReader::new(ring, ledger, grace, points.clone(), snap_length);
    let tc = TcAttacher::new(Instance::claim()?, options.attach_by);
    Ok((PacketAttacher::new(ebpf, table, points, tc), reader))
}

const _: () = {
    // A packet of any length that can be captured has a class.
    assert!(SNAP_CLASSES[SNAP_CLASSES.len() - 1] == MOST_SNAP_LENGTH as usize);
};
