//! [`Redirect`]: the loaded datapath.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use nix::ifaddrs::getifaddrs;
use weir_common::redirect::{BackendCounts, PlaceValue, REASONS};

use super::{
    attach::{self, Device},
    connection::{Connection, ConnectionsOf, Tuple},
    counters::{BackendCounters, Counters, DropReason, Expired, Published, RuleCounters},
    desired::{Desired, RuleId},
    error::RedirectError,
    load,
    local::{self, Local},
    maps::{Maps, failed, found, is_there},
    pins::{Lock, Pins, unlink},
    place::{Attached, LocalMode, Place, PlaceChange, PlaceState},
    publish::{Mirror, sum_counts},
    stamp::Stamps,
    teardown,
    walk::{self, Sweep},
};
use crate::{
    grace::Grace,
    interface::{Kind, Watcher},
    netns::Netns,
    object,
};

/// Where things are and how large they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Directory of the pins, in a BPF file system; no dots in its name below the mount point.
    pub root: PathBuf,
    /// Connections that fit. Where a table is pinned already, its size stays until the next teardown.
    pub capacity: u32,
    /// Connections of this host that packets cannot be redirected for.
    pub local: LocalMode,
    /// The cgroup (v2) whose processes these are of; the topmost one if none is named.
    pub cgroup: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/sys/fs/bpf/weir/proxy"),
            capacity: 262_144,
            local: LocalMode::Cgroup,
            cgroup: None,
        }
    }
}

/// What [`Redirect::open`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Nothing.
    Fresh,
    /// Maps of the same layout, which it uses on.
    TookOver {
        /// Connections in them.
        connections: u64,
    },
}

/// Something that [`Redirect::teardown`] removed, or would.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Removed {
    /// A program of an interface.
    Program {
        /// The interface; its index if it is gone.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// `tcx` or `clsact`.
        hook: &'static str,
    },
    /// A clsact qdisc that was added for the programs and is empty.
    Qdisc {
        /// The interface.
        interface: String,
    },
    /// A program of a cgroup.
    CgroupProgram {
        /// Its name.
        name: String,
    },
    /// A pin.
    Pin {
        /// The file or directory.
        path: PathBuf,
    },
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { interface, direction, hook } => {
                write!(f, "program on {interface} {direction} ({hook})")
            }
            Self::Qdisc { interface } => write!(f, "empty clsact qdisc of {interface}"),
            Self::CgroupProgram { name } => write!(f, "cgroup program {name}"),
            Self::Pin { path } => write!(f, "{}", path.display()),
        }
    }
}

/// The loaded datapath of one network namespace.
///
/// Dropping it changes nothing: what is pinned works on.
pub struct Redirect {
    pub(super) pins: Pins,
    maps: Maps,
    mirror: Mirror,
    stamps: Stamps,
    sweep: Sweep,
    pub(super) local: Local,
    /// Those of this host when they were last looked at.
    addresses: BTreeSet<IpAddr>,
    /// `None` if this is to read only.
    control: Option<Control>,
}

/// What it takes to change something.
struct Control {
    ebpf: Ebpf,
    netns: Netns,
    grace: Grace,
    _lock: Lock,
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirect").field("root", &self.pins.root).finish_non_exhaustive()
    }
}

impl Redirect {
    /// Takes over what is pinned, or loads anew. Programs that are attached are replaced, those that see answers first.
    pub fn open(settings: &Settings) -> Result<(Self, Start), RedirectError> {
        let pins = Pins::new(&settings.root);
        pins.make()?;
        let lock = pins.lock()?;
        let was_there = pins.are_there();
        let netns = Netns::current()?;
        let mut ebpf = load::load(&pins, settings)?;
        let mut maps = Maps::open(&pins.maps)?;
        forget_strangers(&pins, &mut maps, netns.identity().inode)?;
        let stamps = load::set_up(&mut ebpf, &mut maps)?;
        let mirror = Mirror::read(&maps)?;
        let connections = walk::count(&maps)?;
        let grace = Grace::new(object::take(&mut ebpf, "GRACE")?).map_err(failed("GRACE"))?;
        let local = Local::open(&mut ebpf, &pins, &mut maps, settings)?;
        let control = Some(Control { ebpf, netns, grace, _lock: lock });
        let sweep = Sweep::new(connections);
        let addresses = BTreeSet::new();
        let mut redirect = Self { pins, maps, mirror, stamps, sweep, local, addresses, control };
        redirect.replace_programs()?;
        redirect.look_at_addresses()?;
        redirect.local.tell(&mut redirect.maps)?;
        let start = if was_there { Start::TookOver { connections } } else { Start::Fresh };
        Ok((redirect, start))
    }

    /// What is pinned, to read only; `None` if there is nothing.
    pub fn peek(root: &Path) -> Result<Option<Self>, RedirectError> {
        let pins = Pins::new(root);
        if !pins.are_there() {
            return Ok(None);
        }
        let maps = Maps::open(&pins.maps)?;
        let stamps = Stamps::new(&load::config(&maps)?);
        let mirror = Mirror::read(&maps)?;
        let sweep = Sweep::new(walk::count(&maps)?);
        let (local, addresses) = (Local::default(), BTreeSet::new());
        Ok(Some(Self { pins, maps, mirror, stamps, sweep, local, addresses, control: None }))
    }

    /// Attaches to an interface, or replaces the programs there.
    pub fn attach(&mut self, place: &Place) -> Result<Attached, RedirectError> {
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let device = devices(&control.netns)?
            .into_iter()
            .find(|device| device.name == place.interface)
            .ok_or_else(|| RedirectError::UnknownInterface(place.interface.clone()))?;
        let there = self.place(&place.interface)?;
        if there
            .is_some_and(|(index, value)| index != device.index || attach::place_role(&value) != place.role)
        {
            self.detach(&place.interface)?;
        }
        let there = self.place(&place.interface)?.map(|(_, value)| value);
        self.attach_device(&device, place.role, there)
    }

    /// Takes the programs off an interface; nothing happens if there are none.
    pub fn detach(&mut self, interface: &str) -> Result<(), RedirectError> {
        self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        let Some((index, value)) = self.place(interface)? else { return Ok(()) };
        teardown::detach(&self.pins, index, &value)?;
        is_there(self.maps.places.remove(&index), "PLACES")?;
        self.local.tell(&mut self.maps)
    }

    /// Whether an interface of that name is in this network namespace.
    ///
    /// # Errors
    ///
    /// [`RedirectError::UnknownInterface`] if not.
    pub fn find(&self, interface: &str) -> Result<(), RedirectError> {
        let there = devices(&Netns::current()?)?.iter().any(|device| device.name == interface);
        if there { Ok(()) } else { Err(RedirectError::UnknownInterface(interface.to_owned())) }
    }

    /// The interfaces that are to be attached.
    pub fn places(&self) -> Vec<PlaceState> {
        let netns = Netns::current().ok();
        let here = netns.as_ref().map(|netns| netns.identity().inode);
        let present = netns.and_then(|netns| devices(&netns).ok()).unwrap_or_default();
        let mut places: Vec<PlaceState> = self
            .all_places()
            .unwrap_or_default()
            .into_iter()
            .map(|(ifindex, value)| {
                let interface = attach::place_name(&value);
                // What another network namespace has cannot be listed from here.
                let is_present = here != Some(value.netns)
                    || present.iter().any(|device| device.index == ifindex && device.name == interface);
                PlaceState {
                    ifindex,
                    role: attach::place_role(&value),
                    hook: attach::place_hook(&value),
                    is_alive: is_present && teardown::is_attached(&self.pins, ifindex, &value),
                    interface,
                }
            })
            .collect();
        places.sort_by(|a, b| a.interface.cmp(&b.interface));
        places
    }

    /// Attaches to interfaces that came again. To be called when interfaces change.
    pub fn refresh(&mut self) -> Result<Vec<PlaceChange>, RedirectError> {
        let control = self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        let present = devices(&control.netns)?;
        let mut changes = Vec::new();
        for (index, value) in self.all_places()? {
            let interface = attach::place_name(&value);
            let device = present.iter().find(|device| device.name == interface);
            match device {
                Some(device) if device.index == index && teardown::is_attached(&self.pins, index, &value) => {
                    // It may have become part of another one.
                    let now = PlaceValue { is_shared: u8::from(device.is_shared), ..value };
                    write_place(&mut self.maps, index, &now)?;
                }
                Some(device) => {
                    let role = attach::place_role(&value);
                    let again = self.move_place(index, device, role, value);
                    changes.push(match again {
                        Ok(_) => PlaceChange::Attached { interface, ifindex: device.index },
                        Err(error) => PlaceChange::Failed { interface, error },
                    });
                }
                // It has another name now, and goes on.
                None if teardown::is_attached(&self.pins, index, &value) => {}
                // Said once: the pins of what is gone are of no use.
                None if self.pins.link(index, true).exists() => {
                    unlink(&self.pins.link(index, true))?;
                    unlink(&self.pins.link(index, false))?;
                    changes.push(PlaceChange::Gone { interface });
                }
                None => {}
            }
        }
        Ok(changes)
    }

    /// Brings the kernel from what is published to `desired`, each rule at once. What is wrong with `desired` is said
    /// before the first change.
    pub fn publish(&mut self, desired: &Desired) -> Result<Published, RedirectError> {
        self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        self.look_at_addresses()?;
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let outcome = self.mirror.publish(&mut self.maps, desired, &self.addresses, &mut control.grace);
        self.sweep.is_stale = true;
        let (mut published, ended) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // Something may have been written: what is published is what the kernel says.
                self.mirror = Mirror::read(&self.maps)?;
                return Err(error);
            }
        };
        if !ended.is_empty() {
            published.connections_ended = walk::count_of(&self.maps, &ended)?;
        }
        Ok(published)
    }

    /// What is published, read from the kernel.
    pub fn published(&self) -> Result<Desired, RedirectError> {
        Ok(self.mirror.desired())
    }

    /// Hands over every connection until `visit` breaks.
    pub fn connections(
        &self,
        visit: &mut dyn FnMut(&Connection) -> ControlFlow<()>,
    ) -> Result<(), RedirectError> {
        walk::connections(&self.maps, &self.stamps, visit)
    }

    /// One connection.
    pub fn connection(&self, tuple: &Tuple) -> Result<Option<Connection>, RedirectError> {
        walk::connection(&self.maps, &self.stamps, tuple)
    }

    /// Ends connections: TCP gets a reset at the client's next packet, UDP chooses again. Returns how many.
    pub fn end_connections(&mut self, of: ConnectionsOf) -> Result<u64, RedirectError> {
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let ended = walk::end(&mut self.maps, of)?;
        load::begin_epoch(&mut control.ebpf)?;
        Ok(ended)
    }

    /// Removes what timed out, and looks at the addresses of this host; to be called about once a second. Bounded work: a
    /// large table takes several calls.
    pub fn expire(&mut self) -> Result<Expired, RedirectError> {
        self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        self.look_at_addresses()?;
        self.sweep.step(&mut self.maps, &self.mirror, &self.stamps)
    }

    /// Everything that is counted.
    pub fn counters(&self) -> Result<Counters, RedirectError> {
        let mut counters = Counters {
            connections: self.sweep.connections,
            capacity: u64::from(self.maps.capacity),
            other: self.reasons(RuleId(0))?,
            ..Counters::default()
        };
        for id in self.mirror.rules.keys() {
            let retired = found(self.maps.retired.get(&id.0, 0), "RETIRED")?.unwrap_or([0; 8]);
            let retired: BackendCounts = zerocopy::transmute!(retired);
            let sum = BackendCounters::from(retired);
            counters.rules.insert(*id, RuleCounters { sum, reasons: self.reasons(*id)? });
        }
        for (id, backend) in &self.mirror.backends {
            let counts = BackendCounters::from(sum_counts(&self.maps, *id)?);
            counters.backends.insert(*id, counts);
            if let Some(rule) = counters.rules.get_mut(&backend.rule) {
                rule.sum.add(&counts);
            }
        }
        Ok(counters)
    }

    /// A loaded program by its name, for test runs by tests and benchmarks.
    pub fn program(&self, name: &str) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd as _;
        let control = self.control.as_ref()?;
        let Some(aya::programs::Program::SchedClassifier(program)) = control.ebpf.program(name) else {
            return None;
        };
        program.fd().ok().map(|fd| fd.as_fd())
    }

    /// Detaches what is ours and removes the pins. Says what it removed, or with `dry_run` would.
    pub fn teardown(root: &Path, dry_run: bool) -> Result<Vec<Removed>, RedirectError> {
        teardown::teardown(&Pins::new(root), dry_run)
    }

    fn reasons(&self, rule: RuleId) -> Result<BTreeMap<DropReason, u64>, RedirectError> {
        let values = self.maps.reasons.get(&rule.0, 0).map_err(failed("REASONS"))?;
        let mut sums = [0_u64; REASONS];
        for value in values.iter() {
            for (sum, count) in sums.iter_mut().zip(value) {
                *sum += count;
            }
        }
        let named = DropReason::NAMES.iter().zip(sums);
        Ok(named.filter(|(_, sum)| *sum != 0).map(|((reason, ..), sum)| (*reason, sum)).collect())
    }

    /// Attaches both programs, or replaces them.
    fn attach_device(
        &mut self,
        device: &Device,
        role: super::place::Role,
        there: Option<PlaceValue>,
    ) -> Result<Attached, RedirectError> {
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let netns = control.netns.identity().inode;
        let mut value = there.unwrap_or_else(|| attach::place_value(device, role, netns));
        value.is_shared = u8::from(device.is_shared);
        let maps = &mut self.maps;
        let mut record = |value: &PlaceValue| write_place(maps, device.index, value);
        // Written down first: whatever comes in between is found by the next start, or by teardown.
        record(&value)?;
        let mut attach = |is_forward| {
            let was_there =
                attach::attach(&mut control.ebpf, &self.pins, device, &mut value, is_forward, &mut record)?;
            record(&value)?;
            Ok::<_, RedirectError>(was_there)
        };
        let was_answered = attach(false)?;
        let was_forwarded = attach(true)?;
        self.local.tell(&mut self.maps)?;
        Ok(Attached {
            ifindex: device.index,
            hook: attach::place_hook(&value),
            was_attached: was_answered && was_forwarded,
        })
    }

    /// Attaches to an interface that has come again.
    fn move_place(
        &mut self,
        old: u32,
        device: &Device,
        role: super::place::Role,
        value: PlaceValue,
    ) -> Result<Attached, RedirectError> {
        let there = (old == device.index).then_some(value);
        if there.is_none() {
            unlink(&self.pins.link(old, true))?;
            unlink(&self.pins.link(old, false))?;
            is_there(self.maps.places.remove(&old), "PLACES")?;
        }
        self.attach_device(device, role, there)
    }

    /// Replaces the programs of all interfaces: first those that see answers, so that no old one meets an answer that it
    /// does not know.
    fn replace_programs(&mut self) -> Result<(), RedirectError> {
        let places = self.all_places()?;
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let present = devices(&control.netns)?;
        for is_forward in [false, true] {
            for (index, value) in &places {
                let name = attach::place_name(value);
                let device = present.iter().find(|device| device.index == *index && device.name == name);
                let Some(device) = device else { continue };
                let mut value = *value;
                let maps = &mut self.maps;
                let mut record = |value: &PlaceValue| write_place(maps, *index, value);
                attach::attach(&mut control.ebpf, &self.pins, device, &mut value, is_forward, &mut record)?;
            }
        }
        Ok(())
    }

    /// Tells the programs which addresses are this host's, if they have changed.
    fn look_at_addresses(&mut self) -> Result<(), RedirectError> {
        let addresses = local_addresses()?;
        if addresses != self.addresses {
            local::write_addresses(&mut self.maps, &addresses)?;
            self.mirror.relocate(&mut self.maps, &addresses)?;
            self.addresses = addresses;
        }
        Ok(())
    }

    fn all_places(&self) -> Result<Vec<(u32, PlaceValue)>, RedirectError> {
        all_places(&self.maps)
    }

    fn place(&self, interface: &str) -> Result<Option<(u32, PlaceValue)>, RedirectError> {
        Ok(self.all_places()?.into_iter().find(|(_, value)| attach::place_name(value) == interface))
    }
}

pub(super) fn all_places(maps: &Maps) -> Result<Vec<(u32, PlaceValue)>, RedirectError> {
    let mut places = Vec::new();
    for entry in &maps.places {
        let (index, words) = entry.map_err(failed("PLACES"))?;
        places.push((index, zerocopy::transmute!(words)));
    }
    Ok(places)
}

/// Interfaces go by numbers, which mean something in one network namespace only: those of others that are gone are
/// forgotten, and where one may be at work nothing is touched.
fn forget_strangers(pins: &Pins, maps: &mut Maps, here: u64) -> Result<(), RedirectError> {
    for (index, value) in all_places(maps)?.into_iter().filter(|(_, value)| value.netns != here) {
        if teardown::may_live(pins, index, &value) {
            return Err(RedirectError::OtherNamespace {
                path: pins.root.clone(),
                interface: attach::place_name(&value),
            });
        }
        unlink(&pins.link(index, true))?;
        unlink(&pins.link(index, false))?;
        is_there(maps.places.remove(&index), "PLACES")?;
    }
    Ok(())
}

fn write_place(maps: &mut Maps, index: u32, value: &PlaceValue) -> Result<(), RedirectError> {
    let words: [u64; 4] = zerocopy::transmute!(*value);
    maps.places.insert(index, words, 0).map_err(failed("PLACES"))
}

/// The interfaces of a network namespace.
fn devices(netns: &Netns) -> Result<Vec<Device>, RedirectError> {
    let watcher = Watcher::open(netns)?;
    let on_top: BTreeSet<u32> = watcher
        .interfaces()
        .filter(|interface| matches!(interface.kind, Kind::Macvlan) && interface.link_netnsid.is_none())
        .filter_map(|interface| interface.link_index)
        .collect();
    let devices = watcher.interfaces().map(|interface| Device {
        index: interface.index,
        name: interface.name.to_string(),
        link: interface.link,
        is_shared: interface.master.is_some() || on_top.contains(&interface.index),
    });
    Ok(devices.collect())
}

/// The addresses of this host, in the network namespace of the calling thread.
fn local_addresses() -> Result<BTreeSet<IpAddr>, RedirectError> {
    let interfaces = getifaddrs().map_err(|error| RedirectError::Addresses(error.into()))?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses.collect())
}
