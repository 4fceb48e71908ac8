//! Containers of this machine: which one a socket belongs to.
//!
//! The kernel tells the control group of a socket by number, which is the inode of its directory. A thread keeps a
//! table of these directories, reading those only that have changed, and all of them if one is asked for in vain. Sockets without a group (version 1 of control
//! groups) are found by their process. What ends stays in the table for a while, because records come after the facts.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weir_flow::{Container, Detail, Endpoint, Record};

use super::{Enrich, Miss, cgroup::Place};

mod pids;
mod tree;

pub use self::tree::TreeError;
use self::{
    pids::Pids,
    tree::{Look, Tree},
};

/// How often directories are looked at. A record is written a second after its first packet at the latest.
const PERIOD: Duration = Duration::from_millis(500);

/// At least this long between two times that all directories are read: a group that is asked for may be nowhere.
const PAUSE: Duration = Duration::from_secs(2);

/// A control group of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Container and pod, as the path says.
    pub place: Place,
    /// The container, without a name; absent for groups of pods.
    pub container: Option<Arc<Container>>,
}

/// Answers which container a socket belongs to. Clones answer alike.
#[derive(Clone, Debug, Default)]
pub struct Containers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    groups: ArcSwap<Groups>,
    /// Whether somebody asked for a group that is not there.
    is_missed: AtomicBool,
    pids: Pids,
}

/// By inode; `None` where it is no container.
type Groups = HashMap<u64, Option<Arc<Located>>, RandomState>;

/// What keeps [`Containers`] up to date, before it begins to.
#[derive(Debug)]
pub struct Lookout {
    containers: Containers,
    tree: Tree,
}

/// Keeps [`Containers`] up to date until it is dropped.
#[derive(Debug)]
pub struct ContainerWatch {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Puts containers into records.
#[derive(Debug)]
pub struct ContainerEnricher {
    containers: Containers,
    unknown_group: AtomicU64,
}

impl Containers {
    /// Looks at the control groups of this machine, and goes on looking until the watch is dropped.
    pub fn watch() -> Result<(Self, ContainerWatch), TreeError> {
        let (containers, lookout) = Self::look()?;
        Ok((containers, lookout.watch()?))
    }

    /// Looks at the control groups of this machine once. Who wants to go on looking, later, has the lookout for it.
    pub fn look() -> Result<(Self, Lookout), TreeError> {
        let mut tree = Tree::open()?;
        let containers = Self::default();
        containers.refresh(&mut tree, Look::Everywhere);
        Ok((containers.clone(), Lookout { containers, tree }))
    }

    /// The container of the socket at this end, if it is on this machine and known.
    pub fn at(&self, end: &Endpoint) -> Option<Arc<Located>> {
        match self.known(end) {
            Known::Container(located) => Some(located),
            Known::NoContainer | Known::NotYet => None,
        }
    }

    /// The container or pod of a control group, if it is known.
    pub fn of_group(&self, group: u64) -> Option<Arc<Located>> {
        let groups = self.0.groups.load();
        let known = groups.get(&group);
        if known.is_none() && group != 0 {
            self.0.is_missed.store(true, Ordering::Relaxed);
        }
        known.cloned().flatten()
    }

    /// The control groups of containers and pods that are like this.
    pub fn groups(&self, is_like: impl Fn(&Located) -> bool) -> Vec<u64> {
        let groups = self.0.groups.load();
        let of_containers = groups.iter().filter_map(|(group, located)| Some((*group, located.as_deref()?)));
        of_containers.filter(|(_, located)| is_like(located)).map(|(group, _)| group).collect()
    }

    fn known(&self, end: &Endpoint) -> Known {
        match (end.owner.cgroup, &end.process) {
            (0, None) => Known::NoContainer,
            (0, Some(process)) => self.0.pids.get(process.pid),
            (group, _) => {
                if let Some(known) = self.0.groups.load().get(&group) {
                    return known.clone().into();
                }
                self.0.is_missed.store(true, Ordering::Relaxed);
                Known::NotYet
            }
        }
    }

    fn refresh(&self, tree: &mut Tree, look: Look) {
        if let Some(groups) = tree.refresh(look) {
            self.0.groups.store(Arc::new(groups));
        }
        self.0.pids.refresh();
    }
}

impl Lookout {
    /// Where the control groups are mounted.
    pub fn root(&self) -> &Path {
        self.tree.root()
    }

    /// Keeps the containers up to date from now on, until the watch is dropped.
    pub fn watch(self) -> Result<ContainerWatch, TreeError> {
        let Self { containers: shared, mut tree } = self;
        let (stop, stopped) = mpsc::sync_channel(0);
        let work = move || {
            let mut last = Instant::now();
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let look = if last.elapsed() >= PAUSE && shared.0.is_missed.swap(false, Ordering::Relaxed) {
                    last = Instant::now();
                    Look::Everywhere
                } else {
                    Look::Changed
                };
                shared.refresh(&mut tree, look);
            }
        };
        let thread = thread::Builder::new()
            .name("weir-containers".to_owned())
            .spawn(work)
            .map_err(TreeError::Thread)?;
        Ok(ContainerWatch { stop: Some(stop), thread: Some(thread) })
    }
}

/// What is known of a socket.
enum Known {
    Container(Arc<Located>),
    NoContainer,
    NotYet,
}

impl From<Option<Arc<Located>>> for Known {
    fn from(located: Option<Arc<Located>>) -> Self {
        located.map_or(Self::NoContainer, Self::Container)
    }
}

impl Located {
    /// What a path tells, or `None` if it is of no container.
    fn of(path: &str) -> Option<Arc<Self>> {
        let place = Place::of(path);
        if place == Place::default() {
            return None;
        }
        let container =
            place.container.map(|id| Arc::new(Container { id: id.to_string().into(), name: None }));
        Some(Arc::new(Self { place, container }))
    }
}

impl Drop for ContainerWatch {
    fn drop(&mut self) {
        // Dropping the sender wakes the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; names are missing then, nothing else.
            drop(thread.join());
        }
    }
}

impl ContainerEnricher {
    /// Takes containers from there.
    pub fn new(containers: Containers) -> Self {
        Self { containers, unknown_group: AtomicU64::new(0) }
    }
}

impl Enrich for ContainerEnricher {
    fn enrich(&self, records: &mut [Record]) {
        let mut unknown = 0;
        for record in records.iter_mut().filter(|record| record.detail == Detail::Flow) {
            for end in [&mut record.source, &mut record.destination] {
                match self.containers.known(end) {
                    Known::Container(located) => end.identity.container.clone_from(&located.container),
                    Known::NotYet => unknown += 1,
                    Known::NoContainer => {}
                }
            }
        }
        self.unknown_group.fetch_add(unknown, Ordering::Relaxed);
    }

    fn misses(&self) -> Vec<Miss> {
        let ends = self.unknown_group.load(Ordering::Relaxed);
        vec![Miss { what: "container", reason: "not-yet-seen", ends }]
    }
}

#[cfg(test)]
mod tests;
