//! Containers of processes, for sockets of which the kernel does not tell the control group.
//!
//! Whoever asks gets what is known, and asks for what is not: the answer is there half a second later.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::{Known, Located};

/// Processes that may be asked for between two looks. Others are asked for again by their next record.
const WANTED: usize = 1024;

/// By process.
type Table = HashMap<u32, Option<Arc<Located>>>;

/// Which container a process is in.
#[derive(Debug, Default)]
pub(super) struct Pids {
    known: ArcSwap<Table>,
    wanted: Mutex<Vec<u32>>,
}

impl Pids {
    pub(super) fn get(&self, pid: u32) -> Known {
        if let Some(known) = self.known.load().get(&pid) {
            return known.clone().into();
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < WANTED && !wanted.contains(&pid) {
            wanted.push(pid);
        }
        Known::NotYet
    }

    /// Finds out what was asked for, and forgets processes that are over: their numbers are used again.
    pub(super) fn refresh(&self) {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let known = self.known.load();
        let is_over = |pid: &u32| !Path::new("/proc").join(pid.to_string()).exists();
        if wanted.is_empty() && !known.keys().any(is_over) {
            return;
        }
        let mut table = Table::clone(&known);
        table.retain(|pid, _| !is_over(pid));
        for pid in wanted {
            if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) {
                table.insert(pid, located(&text));
            }
        }
        self.known.store(Arc::new(table));
    }
}

/// The container that one of the lines `NUMBER:CONTROLLERS:PATH` tells.
fn located(text: &str) -> Option<Arc<Located>> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(Located::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_hierarchy_may_tell_the_container() {
        let id = "ab".repeat(32);
        let text = format!(
            "12:cpuset:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"
        );
        let found = located(&text).and_then(|located| located.container.clone());
        assert_eq!(found.map(|container| container.id.clone()), Some(id.into()));
        assert_eq!(located("0::/system.slice/ssh.service\n"), None);
    }

    #[test]
    fn our_own_process_is_known_after_it_was_asked_for() {
        let pids = Pids::default();
        assert!(matches!(pids.get(std::process::id()), Known::NotYet));
        pids.refresh();
        assert!(!matches!(pids.get(std::process::id()), Known::NotYet));
    }
}
