//! Putting the capturing programs on interfaces, and taking them off again.

use std::{collections::HashMap, sync::Arc};

use aya::Ebpf;
use weir_common::flow::PointEntry;
use weir_flow::Direction;

use super::points::Points;
use crate::{
    attach::{AttachError, Attached, Device, Directions, Hold, PointTable, TcAttacher},
    instance::Instance,
    object::{self, ProgramCost},
};

/// Attaches and detaches. Every call works in the network namespace of the calling thread, which must always be the
/// same one. Dropping it detaches everything.
pub struct PacketAttacher {
    ebpf: Ebpf,
    table: PointTable,
    points: Points,
    tc: TcAttacher,
    holdings: HashMap<u32, Hold>,
}

impl PacketAttacher {
    pub(super) fn new(ebpf: Ebpf, table: PointTable, points: Points, tc: TcAttacher) -> Self {
        Self { ebpf, table, points, tc, holdings: HashMap::new() }
    }

    /// This Weir's identity, which marks its filters.
    pub fn instance(&self) -> &Instance {
        self.tc.instance()
    }

    /// Interfaces that are attached.
    pub fn attached(&self) -> usize {
        self.holdings.len()
    }

    /// Whether an interface is attached.
    pub fn is_attached(&self, index: u32) -> bool {
        self.holdings.contains_key(&index)
    }

    /// What the loaded programs cost.
    pub fn costs(&self) -> Vec<ProgramCost> {
        object::costs(&self.ebpf)
    }

    /// Starts to capture at an interface. Takes a grace period or two (10 to 50 ms).
    pub fn attach(&mut self, device: &Device, directions: Directions) -> Result<Attached, AttachError> {
        if self.is_attached(device.index) {
            return Err(AttachError::Twice(Arc::clone(&device.name)));
        }
        if let Some(other) = self.holdings.keys().find(|other| *other & 0xffff == device.index & 0xffff) {
            let name = Arc::clone(&device.name);
            return Err(AttachError::SameIndexBits { name, index: device.index, other: *other });
        }
        let (row, [ingress, egress]) = self.points.list(device)?;
        self.table.list(&device.name, PointEntry { ifindex: device.index, row, ..PointEntry::default() })?;
        let (hold, mechanism) = self.tc.attach(&mut self.ebpf, device, directions)?;
        self.holdings.insert(device.index, hold);
        let points = directions.each().map(|direction| match direction {
            Direction::Ingress => Arc::clone(&ingress),
            Direction::Egress => Arc::clone(&egress),
        });
        Ok(Attached { points: points.collect(), mechanism })
    }

    /// Stops capturing at an interface; false if it was not attached. What it saw last is still in the ring buffer.
    pub fn detach(&mut self, index: u32) -> bool {
        self.holdings.remove(&index).is_some()
    }

    /// Stops capturing everywhere. Then settle the reader and read until nothing comes any more.
    pub fn detach_all(&mut self) {
        self.holdings.clear();
    }
}
