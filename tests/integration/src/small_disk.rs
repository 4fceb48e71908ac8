//! A disk without room: a small file system in memory, seen by the calling thread and what it starts.
//!
//! It is mounted in a mount namespace of the thread, so it is gone with it, however a test ends.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sched::{CloneFlags, unshare};

use crate::permission::succeed;

/// A file system with a bound.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one with so many bytes at a directory that exists. Needs root.
    pub fn mount(path: &Path, bytes: u64) -> Self {
        // It concerns this thread alone.
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        succeed(Command::new("mount").args(["--make-rprivate", "/"]));
        let options = format!("size={bytes},mode=0777");
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        Self { path: path.to_owned() }
    }

    /// Fills it up.
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).expect("the file is new");
        for size in [1 << 16, 1 << 12, 1] {
            let piece = vec![1; size];
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    /// Makes room again.
    pub fn relieve(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    /// So that the directory it is mounted at can be removed, also while somebody still has a file there.
    fn drop(&mut self) {
        let _outcome = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
