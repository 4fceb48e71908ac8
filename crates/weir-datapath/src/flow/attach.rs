//! Putting the counting programs on interfaces, and taking them off again.
//!
//! By TC (see [`crate::attach`]) or by packet sockets; either way an interface gets a row of the ledger first.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use weir_common::flow::{
    POINT_COUNTED, POINT_DEDUPLICATE, POINT_SKIP_EGRESS, POINT_SKIP_INGRESS, PointEntry,
};
use weir_flow::{Direction, Point};
use weir_packet::Link;

use super::{
    load::{FlowOptions, Hook},
    packet_socket::{JumpTable, PacketSocket},
    points::{Pair, Points, Refusal, role_code},
};
use crate::{
    attach::{
        AttachError, Attached, Device, Directions, Hold, Mechanism, PointTable, TcAttacher, tc_program,
    },
    instance::Instance,
    object::{self, ProgramCost},
};

/// What keeps the programs attached to one interface. Dropping it detaches them.
enum Programs {
    Tc { _hold: Hold },
    Socket { _socket: PacketSocket },
}

/// An interface that is counted.
struct Holding {
    name: Arc<str>,
    entry: PointEntry,
    _programs: Programs,
}

/// Attaches and detaches. Every call works in the network namespace of the calling thread, which must always be the
/// same one. Dropping it detaches everything.
pub struct FlowAttacher {
    ebpf: Ebpf,
    /// Held for the filters of packet sockets, which jump by it.
    _jumps: Option<JumpTable>,
    table: PointTable,
    points: Points,
    tc: TcAttacher,
    hook: Hook,
    promiscuous: bool,
    netns: Option<Arc<str>>,
    holdings: HashMap<u32, Holding>,
    /// Interfaces that are not counted but marked as counted elsewhere.
    marked: HashSet<u32>,
}

impl FlowAttacher {
    pub(super) fn new(
        ebpf: Ebpf,
        jumps: Option<JumpTable>,
        table: PointTable,
        points: Points,
        instance: Instance,
        options: &FlowOptions,
    ) -> Self {
        Self {
            ebpf,
            _jumps: jumps,
            table,
            points,
            tc: TcAttacher::new(instance, options.attach_by),
            hook: options.hook,
            promiscuous: options.promiscuous,
            netns: options.netns.clone(),
            holdings: HashMap::new(),
            marked: HashSet::new(),
        }
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

    /// The program that [`FlowAttacher::attach`] puts on a device of this kind, for test runs by the self-check and
    /// by benchmarks; `None` with [`Hook::Socket`]. What it counts in a test run is drained like everything else.
    pub fn program(&self, direction: Direction, link: Link) -> Option<BorrowedFd<'_>> {
        let Some(Program::SchedClassifier(program)) = self.ebpf.program(tc_program(direction, link).0) else {
            return None;
        };
        program.fd().ok().map(AsFd::as_fd)
    }

    /// Starts counting an interface. Takes a grace period or two (10 to 50 ms). Refusals by [`AttachError::is_passing`]
    /// may be over after the next drains.
    ///
    /// `deduplicate`: packets that leave here after having come in at another counted interface of the same role count as
    /// duplicate.
    pub fn attach(
        &mut self,
        device: &Device,
        directions: Directions,
        deduplicate: bool,
    ) -> Result<Attached, AttachError> {
        self.check_low_bits(device)?;
        let (row, pair) = self
            .points
            .list(device.index, &device.name, device.role, self.netns.as_ref())
            .map_err(|refusal| refused(device, &refusal))?;
        let mut flags = 0;
        if deduplicate {
            flags |= POINT_DEDUPLICATE;
        }
        if !directions.contains(Direction::Ingress) {
            flags |= POINT_SKIP_INGRESS;
        }
        if !directions.contains(Direction::Egress) {
            flags |= POINT_SKIP_EGRESS;
        }
        let entry = PointEntry { ifindex: device.index, row, role: role_code(device.role), flags };
        let held = self.table.list(&device.name, entry).and_then(|()| self.hold(device, directions));
        let (programs, mechanism) = held.inspect_err(|_| self.points.retire(device.index))?;
        let mut holding = Holding { name: Arc::clone(&device.name), entry, _programs: programs };
        if directions.contains(Direction::Ingress) {
            // Only now: what the programs have not counted yet is nobody's duplicate. If the kernel refuses, packets
            // count twice, at points of different roles, rather than not at all.
            holding.entry.flags |= POINT_COUNTED;
            self.marked.remove(&device.index);
            drop(self.table.list(&holding.name, holding.entry));
        }
        self.holdings.insert(device.index, holding);
        Ok(Attached { points: points_of(&pair, directions), mechanism })
    }

    /// Tells the programs about an interface that is not counted itself but whose packets are, such as a bridge whose
    /// ports are: what leaves an interface of the same role after coming in there is a duplicate. The role is that of
    /// those that count.
    pub fn mark_counted(&mut self, device: &Device) -> Result<(), AttachError> {
        self.check_low_bits(device)?;
        if self.is_attached(device.index) {
            return Err(AttachError::Twice(Arc::clone(&device.name)));
        }
        let entry =
            PointEntry { ifindex: device.index, row: 0, role: role_code(device.role), flags: POINT_COUNTED };
        self.table.list(&device.name, entry)?;
        self.marked.insert(device.index);
        Ok(())
    }

    /// Takes that back.
    pub fn unmark_counted(&mut self, index: u32) {
        if self.marked.remove(&index) {
            self.table.erase(index);
        }
    }

    /// Fails if the place of an interface in the kernel's table is another one's, be that one counted, marked or not yet
    /// read to the end.
    fn check_low_bits(&self, device: &Device) -> Result<(), AttachError> {
        match self.table.holder(device.index) {
            Some(other) if other != device.index => {
                let name = Arc::clone(&device.name);
                Err(AttachError::SameIndexBits { name, index: device.index, other })
            }
            _ => Ok(()),
        }
    }

    /// Stops counting an interface; false if it was not counted. What it saw last is part of the next two drains.
    ///
    /// An interface that is gone needs this too: it frees its row.
    pub fn detach(&mut self, index: u32) -> bool {
        let Some(holding) = self.holdings.remove(&index) else { return false };
        if holding.entry.flags & POINT_COUNTED != 0 {
            // First, so that nothing is taken for a duplicate of what is no longer counted.
            let entry = PointEntry { flags: holding.entry.flags & !POINT_COUNTED, ..holding.entry };
            drop(self.table.list(&holding.name, entry));
        }
        drop(holding);
        self.points.retire(index);
        true
    }

    /// Stops counting everywhere. Then drain twice to read both generations.
    pub fn detach_all(&mut self) {
        let indexes: Vec<u32> = self.holdings.keys().copied().collect();
        for index in indexes {
            self.detach(index);
        }
    }

    /// To be called after each drain: erases interfaces that are gone from the kernel's table once nothing of them
    /// is left to read.
    pub fn forget_drained(&mut self, freed: &[u32]) {
        for index in freed {
            // It may have come back meanwhile, or its number.
            if !self.is_attached(*index) && !self.marked.contains(index) {
                self.table.erase(*index);
            }
        }
    }

    fn hold(
        &mut self,
        device: &Device,
        directions: Directions,
    ) -> Result<(Programs, Mechanism), AttachError> {
        match self.hook {
            Hook::Socket => self.hold_socket(device),
            Hook::Tc => {
                let (hold, mechanism) = self.tc.attach(&mut self.ebpf, device, directions)?;
                Ok((Programs::Tc { _hold: hold }, mechanism))
            }
        }
    }

    fn hold_socket(&mut self, device: &Device) -> Result<(Programs, Mechanism), AttachError> {
        let name = match device.link {
            Link::Ethernet => "weir_jump_l2",
            Link::Ip => "weir_jump_l3",
        };
        let failed = |source| AttachError::Socket { name: Arc::clone(&device.name), source };
        let socket = PacketSocket::open(device.index).map_err(failed)?;
        let Some(Program::SocketFilter(program)) = self.ebpf.program(name) else {
            return Err(AttachError::refused(device, ProgramError::NotLoaded));
        };
        program.attach(socket.as_fd()).map_err(|source| AttachError::refused(device, source))?;
        socket.bind().map_err(failed)?;
        if self.promiscuous {
            socket.promiscuous().map_err(failed)?;
        }
        Ok((Programs::Socket { _socket: socket }, Mechanism::Socket))
    }
}

impl Drop for FlowAttacher {
    fn drop(&mut self) {
        self.detach_all();
    }
}

fn points_of(pair: &Pair, directions: Directions) -> Vec<Arc<Point>> {
    directions.each().map(|direction| Arc::clone(pair.of(direction))).collect()
}

fn refused(device: &Device, refusal: &Refusal) -> AttachError {
    let name = Arc::clone(&device.name);
    match *refusal {
        Refusal::NoRow => AttachError::NoRow(name),
        Refusal::SameIndexBits { other } => AttachError::SameIndexBits { name, index: device.index, other },
        Refusal::Listed => AttachError::Twice(name),
    }
}
