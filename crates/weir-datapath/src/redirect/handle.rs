//! [`Redirect`]: the loaded datapath.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv6Addr},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use nix::ifaddrs::getifaddrs;
use weir_common::redirect::{BackendCounts, REASONS};

use super::{
    connection::{Connection, ConnectionsOf, Tuple},
    counters::{BackendCounters, Counters, DropReason, Expired, Published, RuleCounters},
    desired::{Desired, RuleId},
    elsewhere,
    error::RedirectError,
    load::{self, Tables},
    local::{self, Local},
    maps::{Maps, failed, found},
    pins::{Lock, Pins},
    place::LocalMode,
    places,
    publish::{Mirror, sum_counts},
    resize,
    stamp::Stamps,
    teardown::{self, Removed},
    walk::{self, Sweep},
};
use crate::{grace::Grace, netns::Netns, object};

/// Where things are and how large they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Directory of the pins, in a BPF file system; no dots in its name below the mount point.
    pub root: PathBuf,
    /// Connections that fit. `None` leaves a table that is pinned already as it is, and else stands for
    /// [`Settings::CAPACITY`].
    pub capacity: Option<u32>,
    /// Connections of this host that packets cannot be redirected for.
    pub local: LocalMode,
    /// The cgroup (v2) whose processes these are of; the topmost one if none is named.
    pub cgroup: Option<PathBuf>,
}

impl Settings {
    /// Connections that fit if nothing else is said.
    pub const CAPACITY: u32 = 262_144;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/sys/fs/bpf/weir/proxy"),
            capacity: None,
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
        /// Connections that fitted before, if that has changed.
        resized_from: Option<u32>,
    },
}

/// The loaded datapath of one network namespace.
///
/// Dropping it changes nothing: what is pinned works on.
pub struct Redirect {
    pub(super) pins: Pins,
    pub(super) maps: Maps,
    mirror: Mirror,
    stamps: Stamps,
    sweep: Sweep,
    pub(super) local: Local,
    /// Those of this host when they were last looked at.
    addresses: BTreeSet<IpAddr>,
    /// `None` if this is to read only.
    pub(super) control: Option<Control>,
}

/// What it takes to change something.
pub(super) struct Control {
    pub(super) ebpf: Ebpf,
    pub(super) netns: Netns,
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
        pins.make_root()?;
        let lock = pins.lock()?;
        let netns = Netns::current()?;
        let here = netns.identity().inode;
        for (other, places) in elsewhere::other_layouts(&pins, here)? {
            teardown::remove_layout(&other, &places, here, false, &mut Vec::new())?;
        }
        pins.make_layout()?;
        let was_there = pins.are_there();
        let mut resized_from = None;
        // A process that was killed while it made them has attached nothing; what is missing is made below.
        if pins.are_whole() {
            places::forget_strangers(&pins, &mut Maps::open(&pins.maps)?, here)?;
            resized_from = resize::resize(&pins, settings, &netns)?;
        }
        let mut ebpf = load::load(&pins, settings, Tables::One)?;
        let mut maps = Maps::open(&pins.maps)?;
        let stamps = load::set_up(&mut ebpf, &mut maps)?;
        let mirror = Mirror::read(&maps)?;
        let connections = walk::count(&maps)?;
        let grace = Grace::new(object::take(&mut ebpf, "GRACE")?).map_err(failed("GRACE"))?;
        let local = Local::open(&mut ebpf, &pins, &mut maps, settings)?;
        places::replace_programs(&mut ebpf, &pins, &mut maps, &netns)?;
        let control = Some(Control { ebpf, netns, grace, _lock: lock });
        let sweep = Sweep::new(connections);
        let addresses = BTreeSet::new();
        let mut redirect = Self { pins, maps, mirror, stamps, sweep, local, addresses, control };
        redirect.look_at_addresses()?;
        redirect.local.tell(&mut redirect.maps)?;
        let start = if was_there { Start::TookOver { connections, resized_from } } else { Start::Fresh };
        Ok((redirect, start))
    }

    /// What is pinned, to read only; `None` if there is nothing.
    pub fn peek(root: &Path) -> Result<Option<Self>, RedirectError> {
        let pins = Pins::new(root);
        if !pins.are_there() {
            elsewhere::other_layouts(&pins, Netns::current()?.identity().inode)?;
            return Ok(None);
        }
        let maps = Maps::open(&pins.maps)?;
        let stamps = Stamps::new(&load::config(&maps)?);
        let mirror = Mirror::read(&maps)?;
        let sweep = Sweep::new(walk::count(&maps)?);
        let (local, addresses) = (Local::default(), BTreeSet::new());
        Ok(Some(Self { pins, maps, mirror, stamps, sweep, local, addresses, control: None }))
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
                if !error.is_refusal() {
                    // Something may have been written: what is published is what the kernel says.
                    self.mirror = Mirror::read(&self.maps)?;
                }
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
}

/// The addresses of this host, in the network namespace of the calling thread.
fn local_addresses() -> Result<BTreeSet<IpAddr>, RedirectError> {
    let interfaces = getifaddrs().map_err(|error| RedirectError::Addresses(error.into()))?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    // Programs know the loopback of IPv4 by themselves.
    Ok(addresses.chain([Ipv6Addr::LOCALHOST.into()]).collect())
}
