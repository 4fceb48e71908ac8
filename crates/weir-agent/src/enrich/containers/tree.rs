//! The directories of control groups, with their inodes.

use std::{
    fs, io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use super::{Groups, Located};

/// How long a group that is gone is remembered.
const GRACE: Duration = Duration::from_mins(5);

/// Groups that are taken in; a machine has hundreds.
const LIMIT: usize = 100_000;

/// Inode of the root of the hierarchy, if it is not the root of a namespace that is mounted.
const ROOT_INODE: u64 = 1;

/// Why control groups cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The list of mounts cannot be read.
    #[error("cannot read the list of mounts")]
    Mounts(#[source] io::Error),
    /// There is no version 2 of control groups.
    #[error("no cgroup2 file system is mounted: containers are known by their processes only")]
    NoHierarchy,
    /// The thread that looks at them cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Which directories are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Those that have more or fewer directories in them than before. One that has a new one for an old one is
    /// overlooked.
    Changed,
    /// All.
    Everywhere,
}

/// What was last seen of the hierarchy.
#[derive(Debug)]
pub(super) struct Tree {
    root: Directory,
    gone: HashMap<u64, (Option<Arc<Located>>, Instant)>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    inode: u64,
    located: Option<Arc<Located>>,
    children: Vec<Directory>,
    /// Links when it was read: two, and one for each directory in it.
    links: u64,
}

impl Tree {
    /// Finds the hierarchy.
    pub(super) fn open() -> Result<Self, TreeError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(TreeError::Mounts)?;
        let roots: Vec<PathBuf> = mounts.lines().filter_map(cgroup2).collect();
        let is_whole = |path: &&PathBuf| fs::metadata(path).is_ok_and(|root| root.ino() == ROOT_INODE);
        let root = roots.iter().find(is_whole).or_else(|| roots.first()).ok_or(TreeError::NoHierarchy)?;
        Ok(Self::at(root))
    }

    /// Where the hierarchy is mounted.
    pub(super) fn root(&self) -> &Path {
        &self.root.path
    }

    fn at(root: &Path) -> Self {
        let inode = fs::metadata(root).map_or(ROOT_INODE, |root| root.ino());
        Self { root: Directory::new(root.to_owned(), inode), gone: HashMap::new() }
    }

    /// Looks again; returns all groups if there are others than before.
    pub(super) fn refresh(&mut self, look: Look) -> Option<Groups> {
        let now = Instant::now();
        let mut changed = Changed { gone: Vec::new(), is_other: false, look, left: LIMIT };
        self.root.refresh(&mut changed);
        let before = self.gone.len();
        self.gone.retain(|_, (_, since)| now.duration_since(*since) < GRACE);
        let is_other = changed.is_other || self.gone.len() != before;
        self.gone.extend(changed.gone.into_iter().map(|(inode, located)| (inode, (located, now))));
        is_other.then(|| {
            let mut groups = Groups::default();
            groups.extend(self.gone.iter().map(|(inode, (located, _))| (*inode, located.clone())));
            self.root.collect(&mut groups);
            groups
        })
    }
}

/// What one look found.
struct Changed {
    gone: Vec<(u64, Option<Arc<Located>>)>,
    is_other: bool,
    look: Look,
    left: usize,
}

impl Directory {
    fn new(path: PathBuf, inode: u64) -> Self {
        let located = path.to_str().and_then(Located::of);
        Self { path, inode, located, children: Vec::new(), links: 0 }
    }

    fn refresh(&mut self, changed: &mut Changed) {
        let Ok(metadata) = fs::metadata(&self.path) else { return };
        // The file system of control groups does not keep times of changes, but it counts directories.
        if changed.look == Look::Everywhere || self.links != metadata.nlink() {
            self.links = metadata.nlink();
            self.read(changed);
        }
        changed.left = changed.left.saturating_sub(1);
        for child in &mut self.children {
            child.refresh(changed);
        }
    }

    /// Compares the directory with what was in it.
    fn read(&mut self, changed: &mut Changed) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let mut before: HashMap<u64, Self> =
            self.children.drain(..).map(|child| (child.inode, child)).collect();
        changed.is_other |= before.is_empty();
        // The kernel tells the kind and the inode of each entry with its name: nothing else is read.
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if let Some(child) = before.remove(&entry.ino()) {
                self.children.push(child);
            } else if changed.left > 0 {
                changed.is_other = true;
                self.children.push(Self::new(entry.path(), entry.ino()));
            }
        }
        for child in before.into_values() {
            changed.is_other = true;
            child.leave(changed);
        }
    }

    fn leave(self, changed: &mut Changed) {
        changed.gone.push((self.inode, self.located));
        for child in self.children {
            child.leave(changed);
        }
    }

    fn collect(&self, groups: &mut Groups) {
        groups.insert(self.inode, self.located.clone());
        for child in &self.children {
            child.collect(groups);
        }
    }
}

/// Where a line of the list of mounts has a cgroup2 file system mounted (`proc(5)`).
fn cgroup2(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let is_cgroup2 = after.split(' ').next() == Some("cgroup2");
    // Spaces are written in octal; nobody mounts this below a name with spaces.
    is_cgroup2.then(|| before.split(' ').nth(4).map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let line = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2(line), Some("/sys/fs/cgroup".into()));
        let hybrid = "42 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2("31 23 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu"), None);
        assert_eq!(cgroup2(""), None);
    }

    #[test]
    fn directories_are_found_when_they_come_and_remembered_when_they_go() {
        let root = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        let group = root.path().join("system.slice").join(format!("docker-{id}.scope"));
        let mut tree = Tree::at(root.path());
        assert!(tree.refresh(Look::Changed).is_some());

        fs::create_dir_all(&group).unwrap();
        let inode = fs::metadata(&group).unwrap().ino();
        let container = |groups: &Groups| {
            groups.get(&inode).cloned().flatten().and_then(|located| located.container.clone())
        };
        let groups = tree.refresh(Look::Everywhere).expect("there is a new directory");
        assert_eq!(container(&groups).map(|container| container.id.clone()), Some(id.into()));

        fs::remove_dir(&group).unwrap();
        let groups = tree.refresh(Look::Everywhere).expect("a directory is gone");
        assert!(container(&groups).is_some());
    }

    #[test]
    fn the_groups_of_this_machine_can_be_read() {
        match Tree::open() {
            Ok(mut tree) => assert!(tree.refresh(Look::Changed).is_some_and(|groups| !groups.is_empty())),
            Err(error) => assert!(matches!(error, TreeError::NoHierarchy), "{error}"),
        }
    }
}
