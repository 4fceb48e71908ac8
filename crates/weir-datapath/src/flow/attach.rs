//! Putting the counting programs on interfaces, and taking them off again.
//!
//! Nothing of anybody else's is touched: TCX links stand beside other links, clsact filters get a handle of this
//! instance, and a clsact qdisc is removed only if this instance added it and nothing else is attached to it.

use std::{collections::HashMap, io, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
    },
};
use weir_common::flow::{
    POINT_COUNTED, POINT_DEDUPLICATE, POINT_SKIP_EGRESS, POINT_SKIP_INGRESS, PointEntry,
};
use weir_flow::{Direction, Point, Role};
use weir_packet::Link;

use super::{
    drain::FlowReader,
    load::{AttachBy, FlowOptions, Hook, ProgramCost},
    packet_socket::PacketSocket,
    points::{NO_ENTRY, Pair, Points, Refusal, role_code},
};
use crate::{
    cleanup::clsact::Clsact,
    instance::{Instance, InstanceError, Qdisc},
};

/// What attaching needs to know about an interface.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name at the moment.
    pub name: Arc<str>,
    /// Whether its packets have an Ethernet header.
    pub link: Link,
    /// What it is for.
    pub role: Role,
}

/// Which directions of an interface are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Directions {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
    /// Both.
    Both,
}

impl Directions {
    /// Whether `direction` is one of them.
    #[must_use]
    pub const fn contains(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _) | (Self::Ingress, Direction::Ingress) | (Self::Egress, Direction::Egress)
        )
    }

    fn each(self) -> impl Iterator<Item = Direction> {
        Direction::ALL.into_iter().filter(move |direction| self.contains(*direction))
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link (since 6.6): first in line, gone with the process.
    Tcx,
    /// A filter of the clsact qdisc with this priority.
    Clsact {
        /// Priority of the filter; 1 unless somebody else's filter of another kind has it.
        priority: u16,
    },
    /// A packet socket.
    Socket,
}

/// An interface that is being counted.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its observation points, those of the attached directions only.
    pub points: Vec<Arc<Point>>,
    /// How.
    pub mechanism: Mechanism,
}

/// Why an interface cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is attached already.
    #[error("{0} is attached already")]
    Twice(Arc<str>),
    /// The ledger has no row left.
    #[error("cannot count {0}: too many interfaces at once, restart weir to make room for more")]
    NoRow(Arc<str>),
    /// Another interface shares the bits that the kernel's table is indexed by.
    #[error("cannot count {name}: its index {index} ends in the same 16 bits as that of interface {other}")]
    SameIndexBits {
        /// The interface.
        name: Arc<str>,
        /// Its index.
        index: u32,
        /// Index of the other one.
        other: u32,
    },
    /// The interface is gone, or was renamed under way.
    #[error("cannot attach to {0}: the interface is gone")]
    Gone(Arc<str>),
    /// The kernel refused.
    #[error("cannot attach to {name}")]
    Refused {
        /// The interface.
        name: Arc<str>,
        /// Why.
        source: ProgramError,
    },
    /// The clsact qdisc cannot be added.
    #[error("cannot add a clsact qdisc to {name}")]
    Qdisc {
        /// The interface.
        name: Arc<str>,
        /// Why.
        source: TcError,
    },
    /// A packet socket cannot be opened.
    #[error("cannot open a packet socket on {name}")]
    Socket {
        /// The interface.
        name: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// The kernel's table of interfaces cannot be written.
    #[error("cannot list {name} in the kernel")]
    List {
        /// The interface.
        name: Arc<str>,
        /// Why.
        source: MapError,
    },
    /// This instance cannot mark its filters.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

enum Hold {
    Tcx(Vec<SchedClassifierLink>),
    Clsact { links: Vec<SchedClassifierLink>, qdisc: Qdisc },
    Socket(PacketSocket),
}

/// Attaches and detaches. Every call works in the network namespace of the calling thread, which must always be the
/// same one. Dropping it detaches everything.
pub struct FlowAttacher {
    ebpf: Ebpf,
    entries: Array<MapData, [u32; 2]>,
    points: Points,
    instance: Instance,
    hook: Hook,
    promiscuous: bool,
    netns: Option<Arc<str>>,
    tcx: bool,
    holdings: HashMap<u32, Hold>,
}

impl FlowAttacher {
    pub(super) fn new(
        ebpf: Ebpf,
        entries: Array<MapData, [u32; 2]>,
        points: Points,
        instance: Instance,
        options: &FlowOptions,
    ) -> Self {
        Self {
            ebpf,
            entries,
            points,
            instance,
            hook: options.hook,
            promiscuous: options.promiscuous,
            netns: options.netns.clone(),
            tcx: options.attach_by == AttachBy::Best,
            holdings: HashMap::new(),
        }
    }

    /// This Weir's identity, which marks its filters.
    pub fn instance(&self) -> &Instance {
        &self.instance
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
        let mut costs = Vec::new();
        for (name, program) in self.ebpf.programs() {
            let info = match program {
                Program::SchedClassifier(program) => program.info(),
                Program::SocketFilter(program) => program.info(),
                _ => continue,
            };
            // Programs of the other hook are not loaded.
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

    /// Starts counting an interface. Takes a grace period or two (10 to 50 ms).
    ///
    /// `deduplicate`: packets that leave here after having come in at another counted interface count as duplicate.
    pub fn attach(
        &mut self,
        device: &Device,
        directions: Directions,
        deduplicate: bool,
    ) -> Result<Attached, AttachError> {
        let (row, pair) = self
            .points
            .list(device.index, &device.name, device.role, self.netns.as_ref())
            .map_err(|refusal| refused(device, &refusal))?;
        let mut flags = 0;
        if deduplicate {
            flags |= POINT_DEDUPLICATE;
        }
        if directions.contains(Direction::Ingress) {
            flags |= POINT_COUNTED;
        } else {
            flags |= POINT_SKIP_INGRESS;
        }
        if !directions.contains(Direction::Egress) {
            flags |= POINT_SKIP_EGRESS;
        }
        let entry = PointEntry { ifindex: device.index, row, role: role_code(device.role), flags };
        let attached = self.list(device, entry).and_then(|()| self.hold(device, directions));
        match attached {
            Ok((hold, mechanism)) => {
                self.holdings.insert(device.index, hold);
                Ok(Attached { points: points_of(&pair, directions), mechanism })
            }
            Err(error) => {
                self.points.retire(device.index);
                Err(error)
            }
        }
    }

    /// Tells the programs about an interface that is not counted itself but whose packets are, such as a bridge whose
    /// ports are: what leaves another interface after coming in there is a duplicate.
    pub fn mark_counted(&mut self, device: &Device) -> Result<(), AttachError> {
        let entry =
            PointEntry { ifindex: device.index, row: 0, role: role_code(device.role), flags: POINT_COUNTED };
        self.list(device, entry)
    }

    /// Stops counting an interface; false if it was not counted. What it saw last is part of the next two drains.
    ///
    /// An interface that is gone needs this too: it frees its row.
    pub fn detach(&mut self, index: u32) -> bool {
        let Some(hold) = self.holdings.remove(&index) else { return false };
        release(index, hold);
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
            // The entry is only a hint for packets of an interface that no longer has a program, so a failure here
            // costs nothing but a stale entry that the next interface of that index overwrites.
            drop(self.entries.set(index & 0xffff, words(NO_ENTRY), 0));
        }
    }

    fn list(&mut self, device: &Device, entry: PointEntry) -> Result<(), AttachError> {
        self.entries
            .set(device.index & 0xffff, words(entry), 0)
            .map_err(|source| AttachError::List { name: Arc::clone(&device.name), source })
    }

    fn hold(&mut self, device: &Device, directions: Directions) -> Result<(Hold, Mechanism), AttachError> {
        match self.hook {
            Hook::Socket => self.hold_socket(device),
            Hook::Tc if self.tcx => match self.hold_tcx(device, directions) {
                // A kernel before 6.6 does not know the attach type.
                Err(AttachError::Refused { source, .. }) if is_unsupported(&source) => {
                    self.tcx = false;
                    self.hold_clsact(device, directions)
                }
                outcome => outcome,
            },
            Hook::Tc => self.hold_clsact(device, directions),
        }
    }

    fn hold_tcx(
        &mut self,
        device: &Device,
        directions: Directions,
    ) -> Result<(Hold, Mechanism), AttachError> {
        let mut links = Vec::new();
        for direction in directions.each() {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let link =
                self.attach_program(device, direction, options).map_err(|source| refusal(device, source))?;
            links.push(link);
        }
        Ok((Hold::Tcx(links), Mechanism::Tcx))
    }

    fn hold_clsact(
        &mut self,
        device: &Device,
        directions: Directions,
    ) -> Result<(Hold, Mechanism), AttachError> {
        let qdisc = match qdisc_add_clsact(&device.name) {
            Ok(()) => Qdisc::Added,
            Err(error) if errno(&error) == Some(libc::EEXIST) => Qdisc::Found,
            Err(source) => return Err(AttachError::Qdisc { name: Arc::clone(&device.name), source }),
        };
        let handle = TcHandle::from(self.instance.filter_handle(qdisc));
        let mut links = Vec::new();
        let mut used = 1;
        for direction in directions.each() {
            let link = self.attach_filter(device, direction, handle, &mut used);
            match link {
                Ok(link) => links.push(link),
                Err(error) => {
                    release(device.index, Hold::Clsact { links, qdisc });
                    return Err(error);
                }
            }
        }
        Ok((Hold::Clsact { links, qdisc }, Mechanism::Clsact { priority: used }))
    }

    /// Attaches at priority 1, or the next one that is not held by a filter of another kind.
    fn attach_filter(
        &mut self,
        device: &Device,
        direction: Direction,
        handle: TcHandle,
        used: &mut u16,
    ) -> Result<SchedClassifierLink, AttachError> {
        let mut priority = 1;
        loop {
            let options = NlOptions { priority, handle, classid: None };
            match self.attach_program(device, direction, TcAttachOptions::Netlink(options)) {
                Ok(link) => {
                    *used = priority.max(*used);
                    return Ok(link);
                }
                Err(ProgramError::TcError(error))
                    if matches!(errno(&error), Some(libc::EEXIST | libc::EINVAL | libc::ENOENT))
                        && priority < LAST_PRIORITY =>
                {
                    priority += 1;
                }
                Err(source) => return Err(refusal(device, source)),
            }
        }
    }

    fn attach_program(
        &mut self,
        device: &Device,
        direction: Direction,
        options: TcAttachOptions,
    ) -> Result<SchedClassifierLink, ProgramError> {
        let (name, attach_type) = match (direction, device.link) {
            (Direction::Ingress, Link::Ethernet) => ("weir_ingress_l2", TcAttachType::Ingress),
            (Direction::Ingress, Link::Ip) => ("weir_ingress_l3", TcAttachType::Ingress),
            (Direction::Egress, Link::Ethernet) => ("weir_egress_l2", TcAttachType::Egress),
            (Direction::Egress, Link::Ip) => ("weir_egress_l3", TcAttachType::Egress),
        };
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        let link = program.attach_with_options(&device.name, attach_type, options)?;
        program.take_link(link)
    }

    fn hold_socket(&mut self, device: &Device) -> Result<(Hold, Mechanism), AttachError> {
        let name = match device.link {
            Link::Ethernet => "weir_socket_l2",
            Link::Ip => "weir_socket_l3",
        };
        let failed = |source| AttachError::Socket { name: Arc::clone(&device.name), source };
        let socket = PacketSocket::open(device.index).map_err(failed)?;
        let Some(Program::SocketFilter(program)) = self.ebpf.program(name) else {
            return Err(refusal(device, ProgramError::NotLoaded));
        };
        program.attach(socket.as_fd()).map_err(|source| refusal(device, source))?;
        socket.bind().map_err(failed)?;
        if self.promiscuous {
            socket.promiscuous().map_err(failed)?;
        }
        Ok((Hold::Socket(socket), Mechanism::Socket))
    }
}

impl FlowReader {
    /// Ends the rest of interfaces that were detached long enough ago; hand the result to
    /// [`FlowAttacher::forget_drained`] on its thread.
    pub fn finish_drain(&self) -> Vec<u32> {
        self.freed()
    }
}

impl Drop for FlowAttacher {
    fn drop(&mut self) {
        self.detach_all();
    }
}

/// Highest priority that is tried where others are taken.
const LAST_PRIORITY: u16 = 16;

fn release(index: u32, hold: Hold) {
    match hold {
        // Links detach when they are dropped; sockets when they are closed.
        Hold::Tcx(links) => drop(links),
        Hold::Socket(socket) => drop(socket),
        Hold::Clsact { links, qdisc } => {
            drop(links);
            if qdisc == Qdisc::Added {
                // A qdisc that stays behind is empty and harmless, and the interface may be gone by now.
                drop(Clsact::open().and_then(|mut clsact| clsact.delete_empty_qdisc(index)));
            }
        }
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

fn refusal(device: &Device, source: ProgramError) -> AttachError {
    let name = Arc::clone(&device.name);
    if program_errno(&source) == Some(libc::ENODEV) {
        return AttachError::Gone(name);
    }
    AttachError::Refused { name, source }
}

fn is_unsupported(error: &ProgramError) -> bool {
    matches!(program_errno(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn program_errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(error) => errno(error),
        ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// An entry of the kernel's table, as the words that aya writes.
fn words(entry: PointEntry) -> [u32; 2] {
    zerocopy::transmute!(entry)
}
