//! Where things are pinned.
//!
//! `ROOT/vN/maps/NAME` for layout N, `ROOT/vN/links/IFINDEX-forward` and `-answer` for TCX links. BPF file systems refuse
//! dots in names, so interfaces go by index.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use weir_common::redirect::REDIRECT_LAYOUT;

use super::{error::RedirectError, maps::PINNED};

/// Where BPF file systems are mounted by custom, and may be mounted by us.
const CUSTOMARY: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC`.
const MAGIC: i64 = 0xcafe_4a11;

/// Directories of one layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    /// Of everything.
    pub(super) root: PathBuf,
    /// Of this layout.
    pub(super) version: PathBuf,
    /// Of its maps.
    pub(super) maps: PathBuf,
    /// Of its links.
    pub(super) links: PathBuf,
}

/// Keeps other processes from changing what is pinned.
#[derive(Debug)]
pub(super) struct Lock {
    _directory: fs::File,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Self {
        Self::of_layout(root, REDIRECT_LAYOUT)
    }

    fn of_layout(root: &Path, layout: u32) -> Self {
        let version = root.join(format!("v{layout}"));
        Self { root: root.to_owned(), maps: version.join("maps"), links: version.join("links"), version }
    }

    /// Directories of other layouts below the same root.
    pub(super) fn others(&self) -> Vec<Self> {
        let names = fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let layouts = names.filter_map(|name| name.to_str()?.strip_prefix('v')?.parse().ok());
        let mut layouts: Vec<u32> = layouts.filter(|layout| *layout != REDIRECT_LAYOUT).collect();
        layouts.sort_unstable();
        layouts.into_iter().map(|layout| Self::of_layout(&self.root, layout)).collect()
    }

    /// Makes the root, and mounts the file system where that is the custom and it is missing.
    pub(super) fn make_root(&self) -> Result<(), RedirectError> {
        self.mount()?;
        Self::make(&[&self.root])
    }

    /// Makes the directories of this layout.
    pub(super) fn make_layout(&self) -> Result<(), RedirectError> {
        Self::make(&[&self.maps, &self.links])
    }

    fn make(paths: &[&PathBuf]) -> Result<(), RedirectError> {
        for path in paths {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
                let remedy = if source.kind() == io::ErrorKind::PermissionDenied {
                    "needs root, and a name without dots"
                } else {
                    "the directory cannot be made"
                };
                RedirectError::Pin { path: PathBuf::clone(path), remedy, source }
            })?;
        }
        Ok(())
    }

    fn mount(&self) -> Result<(), RedirectError> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if is_bpf(existing) {
            return Ok(());
        }
        if self.root.starts_with(CUSTOMARY) && existing == Path::new(CUSTOMARY) {
            let target = c"/sys/fs/bpf";
            // SAFETY: all strings end with a zero and outlive the call.
            let outcome = unsafe {
                libc::mount(
                    c"bpf".as_ptr(),
                    target.as_ptr(),
                    c"bpf".as_ptr(),
                    libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                    c"mode=0700".as_ptr().cast(),
                )
            };
            if outcome == 0 {
                return Ok(());
            }
        }
        Err(RedirectError::Pin {
            path: existing.to_owned(),
            remedy: "no BPF file system is mounted there: mount -t bpf bpf DIRECTORY",
            source: io::Error::last_os_error(),
        })
    }

    /// Whether maps of this layout are pinned.
    pub(super) fn are_there(&self) -> bool {
        self.maps.join("CONNECTIONS").exists() && self.maps.join("PLACES").exists()
    }

    /// Whether all of them are.
    pub(super) fn are_whole(&self) -> bool {
        PINNED.iter().all(|name| self.maps.join(name).exists())
    }

    /// Takes the directory for this process, as long as the answer lives.
    pub(super) fn lock(&self) -> Result<Lock, RedirectError> {
        let failed = |source| RedirectError::Pin {
            path: self.root.clone(),
            remedy: "the directory cannot be opened",
            source,
        };
        let directory = fs::File::open(&self.root).map_err(failed)?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Lock { _directory: directory });
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(RedirectError::Held { path: self.root.clone() });
        }
        Err(failed(error))
    }

    /// The pins of all links: those that send connections elsewhere come before those that see answers.
    pub(super) fn all_links(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.links).into_iter().flatten().flatten();
        let mut links: Vec<_> = entries.map(|entry| entry.path()).collect();
        links.sort_by_key(|path| {
            let name = path.to_string_lossy();
            !(name.ends_with("-forward") || name.contains("local-connect") || name.contains("local-sendmsg"))
        });
        links
    }

    /// The pin of a link.
    pub(super) fn link(&self, ifindex: u32, is_forward: bool) -> PathBuf {
        self.links.join(format!("{ifindex}-{}", if is_forward { "forward" } else { "answer" }))
    }
}

fn is_bpf(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the structure is only read if the call filled it in.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and both outlive the call.
    let outcome = unsafe { libc::statfs(path.as_ptr(), &raw mut status) };
    outcome == 0 && status.f_type == MAGIC
}

/// Removes a file that may be gone already.
pub(super) fn unlink(path: &Path) -> Result<(), RedirectError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RedirectError::Pin { path: path.to_owned(), remedy: "it cannot be removed", source })
        }
        _ => Ok(()),
    }
}
