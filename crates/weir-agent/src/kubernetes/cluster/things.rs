//! [`Things`]: pods, nodes or services with their addresses, and the table of addresses that follows from them.

use std::{net::IpAddr, sync::Arc};

use hashbrown::HashMap;
use weir_flow::{Wall, Workload};

use crate::kubernetes::{
    intervals::Since,
    names::{ContainerId, Table, key},
};

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) workload: Arc<Workload>,
    pub(super) addresses: Box<[IpAddr]>,
    pub(super) containers: Box<[ContainerId]>,
    /// Identifier of the replica set or job that controls it.
    pub(super) controller: Option<Arc<str>>,
}

/// All of one kind, by identifier.
#[derive(Debug, Default)]
pub(super) struct Things {
    entries: HashMap<Arc<str>, Entry>,
    /// Number of the list that is being read or was read last.
    list: u32,
}

#[derive(Debug)]
struct Entry {
    thing: Thing,
    list: u32,
}

impl Things {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Thing> {
        self.entries.get(uid).map(|entry| &entry.thing)
    }

    /// Takes in the present state of a thing. Returns its description, whether that is another than before, and what
    /// it had before and has no longer.
    pub(super) fn place(
        &mut self,
        table: &mut Table,
        mut thing: Thing,
        since: Since,
        now: Wall,
    ) -> (Arc<Workload>, bool, Option<Thing>) {
        let before = self.entries.remove(&thing.workload.uid);
        let mut is_new = true;
        if let Some(Entry { thing: before, .. }) = &before {
            if before.workload == thing.workload {
                thing.workload = Arc::clone(&before.workload);
                is_new = false;
            }
            for address in before.addresses.iter().filter(|address| !thing.addresses.contains(address)) {
                table.addresses.change(key(*address), |holdings| holdings.release(&thing.workload.uid, now));
            }
        }
        let had =
            |address: &IpAddr| before.as_ref().is_some_and(|entry| entry.thing.addresses.contains(address));
        for address in &thing.addresses {
            if !had(address) {
                // One that changes its address has the new one from now on.
                let since = if before.as_ref().is_some_and(|entry| !entry.thing.addresses.is_empty()) {
                    Since::exactly(now)
                } else {
                    since
                };
                table.addresses.change(key(*address), |holdings| holdings.claim(&thing.workload, since));
            } else if is_new {
                table.addresses.change(key(*address), |holdings| holdings.describe(&thing.workload));
            }
        }
        let workload = Arc::clone(&thing.workload);
        let lost = before.and_then(|entry| entry.thing.without(&thing));
        self.entries.insert(Arc::clone(&workload.uid), Entry { thing, list: self.list });
        (workload, is_new, lost)
    }

    /// Describes a thing anew, and nothing else.
    pub(super) fn describe(
        &mut self,
        table: &mut Table,
        uid: &str,
        workload: &Arc<Workload>,
    ) -> Option<&Thing> {
        let thing = &mut self.entries.get_mut(uid)?.thing;
        thing.workload = Arc::clone(workload);
        for address in &thing.addresses {
            table.addresses.change(key(*address), |holdings| holdings.describe(workload));
        }
        Some(thing)
    }

    /// The thing is over since `until`.
    pub(super) fn remove(&mut self, table: &mut Table, uid: &str, until: Wall) -> Option<Thing> {
        let thing = self.entries.remove(uid)?.thing;
        for address in &thing.addresses {
            table.addresses.change(key(*address), |holdings| holdings.release(uid, until));
        }
        Some(thing)
    }

    pub(super) fn begin_list(&mut self) {
        self.list += 1;
    }

    /// Identifiers of those that the list did not have.
    pub(super) fn not_in_list(&self) -> Vec<Arc<str>> {
        let gone = self.entries.iter().filter(|(_, entry)| entry.list != self.list);
        gone.map(|(uid, _)| Arc::clone(uid)).collect()
    }
}

impl Thing {
    /// The addresses and containers that `now` has not, if there are any.
    fn without(self, now: &Self) -> Option<Self> {
        let addresses: Box<[_]> =
            self.addresses.iter().copied().filter(|address| !now.addresses.contains(address)).collect();
        let containers: Box<[_]> =
            self.containers.iter().copied().filter(|id| !now.containers.contains(id)).collect();
        let is_something = !addresses.is_empty() || !containers.is_empty();
        is_something.then_some(Self { addresses, containers, ..self })
    }
}

impl Table {
    /// Forgets who lost the address before `horizon`.
    pub(super) fn forget(&mut self, address: IpAddr, horizon: Wall) {
        let key = key(address);
        let mut is_empty = false;
        self.addresses.change(key, |holdings| {
            holdings.forget(horizon);
            is_empty = holdings.is_empty();
        });
        if is_empty {
            self.addresses.remove(&key);
        }
    }
}
