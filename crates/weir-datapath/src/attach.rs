//! Putting TC programs on interfaces, and taking them off again; what all objects that attach have in common.
//!
//! Nothing of anybody else's is touched: TCX links stand beside other links, clsact filters get a handle of this
//! instance, and a clsact qdisc is removed only if this instance added it and nothing else is attached to it.

use std::{collections::HashMap, io, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
    },
};
use weir_common::flow::PointEntry;
use weir_flow::{Direction, Point, Role};
use weir_packet::Link;

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

impl Device {
    /// Fails if the name is no longer that of this interface, in the network namespace of the calling thread.
    fn check_name(&self) -> Result<(), AttachError> {
        match nix::net::if_::if_nametoindex(&*self.name) {
            Ok(index) if index == self.index => Ok(()),
            _ => Err(AttachError::Gone(Arc::clone(&self.name))),
        }
    }
}

/// Which directions of an interface are of interest.
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

    pub(crate) fn each(self) -> impl Iterator<Item = Direction> {
        Direction::ALL.into_iter().filter(move |direction| self.contains(*direction))
    }
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachBy {
    /// By TCX where the kernel has it, else by clsact.
    #[default]
    Best,
    /// By clsact, whatever the kernel has.
    Clsact,
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

/// An interface that is attached.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its observation points, those of the attached directions only.
    pub points: Vec<Arc<Point>>,
    /// How.
    pub mechanism: Mechanism,
}

/// Why an interface cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is attached already.
    #[error("{0} is attached already")]
    Twice(Arc<str>),
    /// The ledger has no row left.
    #[error(
        "cannot count {0}: too many interfaces at once; it is tried again when others are gone, and restarting weir makes room for more"
    )]
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

impl AttachError {
    /// Whether it may work when interfaces that are gone have been read to the end.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::NoRow(_) | Self::SameIndexBits { .. })
    }

    /// What the kernel's refusal to attach to `device` means.
    pub(crate) fn refused(device: &Device, source: ProgramError) -> Self {
        let name = Arc::clone(&device.name);
        if program_errno(&source) == Some(libc::ENODEV) {
            return Self::Gone(name);
        }
        Self::Refused { name, source }
    }
}

/// The kernel's table of interfaces, the map `POINTS` of an object, which is indexed by the low 16 bits of their index.
pub(crate) struct PointTable {
    map: Array<MapData, [u32; 2]>,
    /// Whose entries are there, by these bits.
    listed: HashMap<u32, u32>,
}

impl PointTable {
    /// Takes over the map.
    pub(crate) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: map.try_into()?, listed: HashMap::new() })
    }

    /// The interface whose entry is where that of `index` belongs.
    pub(crate) fn holder(&self, index: u32) -> Option<u32> {
        self.listed.get(&low_bits(index)).copied()
    }

    /// Tells the programs about an interface.
    pub(crate) fn list(&mut self, name: &Arc<str>, entry: PointEntry) -> Result<(), AttachError> {
        self.map
            .set(low_bits(entry.ifindex), words(entry), 0)
            .map_err(|source| AttachError::List { name: Arc::clone(name), source })?;
        self.listed.insert(low_bits(entry.ifindex), entry.ifindex);
        Ok(())
    }

    /// Erases an interface that is gone, unless another one has taken its place.
    pub(crate) fn erase(&mut self, index: u32) {
        if self.holder(index) == Some(index) {
            self.listed.remove(&low_bits(index));
            // The entry is only a hint for packets of an interface that no longer has a program, so a failure here
            // costs nothing but a stale entry that the next interface of that index overwrites.
            drop(self.map.set(low_bits(index), words(PointEntry::default()), 0));
        }
    }
}

fn low_bits(index: u32) -> u32 {
    index & 0xffff
}

/// An entry, as the words that aya writes.
fn words(entry: PointEntry) -> [u32; 2] {
    zerocopy::transmute!(entry)
}

/// The programs of an object on one interface. Dropping it detaches them.
pub(crate) struct Hold {
    /// Links detach when they are dropped.
    links: Vec<SchedClassifierLink>,
    /// The interface, if the clsact qdisc there was added for these programs.
    added_qdisc: Option<u32>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.links.clear();
        if let Some(index) = self.added_qdisc {
            // A qdisc that stays behind is empty and harmless, and the interface may be gone by now.
            drop(Clsact::open().and_then(|mut clsact| clsact.delete_empty_qdisc(index)));
        }
    }
}

/// Attaches the four programs that each TC object has (ingress and egress, with and without Ethernet headers). Works in
/// the network namespace of the calling thread, which must always be the same one.
pub(crate) struct TcAttacher {
    instance: Instance,
    tcx: bool,
}

/// Names of these programs. All are loaded before anything is attached: afterwards some of the maps whose descriptors
/// the instructions carry are closed.
pub(crate) const TC_PROGRAMS: [&str; 4] =
    ["weir_ingress_l2", "weir_egress_l2", "weir_ingress_l3", "weir_egress_l3"];

/// The one for a direction and a kind of device, and where it is attached.
pub(crate) fn tc_program(direction: Direction, link: Link) -> (&'static str, TcAttachType) {
    let [ingress_l2, egress_l2, ingress_l3, egress_l3] = TC_PROGRAMS;
    match (direction, link) {
        (Direction::Ingress, Link::Ethernet) => (ingress_l2, TcAttachType::Ingress),
        (Direction::Ingress, Link::Ip) => (ingress_l3, TcAttachType::Ingress),
        (Direction::Egress, Link::Ethernet) => (egress_l2, TcAttachType::Egress),
        (Direction::Egress, Link::Ip) => (egress_l3, TcAttachType::Egress),
    }
}

/// Highest priority that is tried where others are taken.
const LAST_PRIORITY: u16 = 16;

impl TcAttacher {
    pub(crate) fn new(instance: Instance, attach_by: AttachBy) -> Self {
        Self { instance, tcx: attach_by == AttachBy::Best }
    }

    /// This Weir's identity, which marks its filters.
    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Attaches the programs for these directions. Takes a grace period or two (10 to 50 ms).
    ///
    /// The kernel is asked by name, and names move: if this one is another interface's before or after, nothing stays
    /// attached and the answer is [`AttachError::Gone`].
    pub(crate) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        device: &Device,
        directions: Directions,
    ) -> Result<(Hold, Mechanism), AttachError> {
        device.check_name()?;
        let attached = self.attach_by_name(ebpf, device, directions)?;
        device.check_name()?;
        Ok(attached)
    }

    fn attach_by_name(
        &mut self,
        ebpf: &mut Ebpf,
        device: &Device,
        directions: Directions,
    ) -> Result<(Hold, Mechanism), AttachError> {
        if !self.tcx {
            return self.attach_clsact(ebpf, device, directions);
        }
        match attach_tcx(ebpf, device, directions) {
            // A kernel before 6.6 does not know the attach type.
            Err(AttachError::Refused { source, .. }) if is_unsupported(&source) => {
                self.tcx = false;
                self.attach_clsact(ebpf, device, directions)
            }
            outcome => outcome,
        }
    }

    fn attach_clsact(
        &self,
        ebpf: &mut Ebpf,
        device: &Device,
        directions: Directions,
    ) -> Result<(Hold, Mechanism), AttachError> {
        let qdisc = match qdisc_add_clsact(&device.name) {
            Ok(()) => Qdisc::Added,
            Err(error) if errno(&error) == Some(libc::EEXIST) => Qdisc::Found,
            Err(source) => return Err(AttachError::Qdisc { name: Arc::clone(&device.name), source }),
        };
        // If the name has moved on meanwhile, an empty qdisc stays with somebody; taking it off could hit another one.
        device.check_name()?;
        let handle = TcHandle::from(self.instance.filter_handle(qdisc));
        let added_qdisc = (qdisc == Qdisc::Added).then_some(device.index);
        let mut hold = Hold { links: Vec::new(), added_qdisc };
        let mut priority = 1;
        for direction in directions.each() {
            let (link, used) = attach_filter(ebpf, device, direction, handle)?;
            hold.links.push(link);
            priority = priority.max(used);
        }
        Ok((hold, Mechanism::Clsact { priority }))
    }
}

fn attach_tcx(
    ebpf: &mut Ebpf,
    device: &Device,
    directions: Directions,
) -> Result<(Hold, Mechanism), AttachError> {
    let mut links = Vec::new();
    for direction in directions.each() {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = attach_program(ebpf, device, direction, options)
            .map_err(|source| AttachError::refused(device, source))?;
        links.push(link);
    }
    Ok((Hold { links, added_qdisc: None }, Mechanism::Tcx))
}

/// Attaches at priority 1, or the next one that is not held by a filter of another kind.
fn attach_filter(
    ebpf: &mut Ebpf,
    device: &Device,
    direction: Direction,
    handle: TcHandle,
) -> Result<(SchedClassifierLink, u16), AttachError> {
    let mut priority = 1;
    loop {
        let options = NlOptions { priority, handle, classid: None };
        match attach_program(ebpf, device, direction, TcAttachOptions::Netlink(options)) {
            Ok(link) => return Ok((link, priority)),
            Err(ProgramError::TcError(error))
                if matches!(errno(&error), Some(libc::EEXIST | libc::EINVAL | libc::ENOENT))
                    && priority < LAST_PRIORITY =>
            {
                priority += 1;
            }
            Err(source) => return Err(AttachError::refused(device, source)),
        }
    }
}

fn attach_program(
    ebpf: &mut Ebpf,
    device: &Device,
    direction: Direction,
    options: TcAttachOptions,
) -> Result<SchedClassifierLink, ProgramError> {
    let (name, attach_type) = tc_program(direction, device.link);
    let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    let link = program.attach_with_options(&device.name, attach_type, options)?;
    program.take_link(link)
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
