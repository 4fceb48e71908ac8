//! Network namespaces: opens them by name or process, makes new ones, and runs code inside.
//!
//! Code runs on a thread of its own, made for that one call: no thread that anybody else uses ever changes its
//! namespace. A netlink or packet socket opened inside stays bound to that namespace, wherever it is used later.
//! A [`Netns`] holds a descriptor, so the namespace lives as long as it does. Never names, pins or removes one.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::MetadataExt,
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
};
use thiserror::Error;

/// Where `ip netns add` binds its namespaces.
const NAMED: &str = "/run/netns";
/// The namespace of the thread that looks, which need not be that of the main thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by a descriptor. Cloning shares the descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    name: Option<Arc<str>>,
    identity: NetnsIdentity,
}

/// What tells namespaces apart. Two descriptors of one namespace have the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsIdentity {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode, as in `net:[4026531840]`.
    pub inode: u64,
}

/// Why a network namespace cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Neither a name below `/run/netns` nor the number of a process.
    #[error("no network namespace or process {wanted}: {}", existing_namespaces(existing))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Names that exist.
        existing: Vec<String>,
    },
    /// It exists, but cannot be read.
    #[error("cannot open network namespace {}: {}", path.display(), open_remedy(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there, but is no network namespace.
    #[error("{} is not a network namespace: remove it, or make it with ip netns add", path.display())]
    NotNetns {
        /// The file.
        path: PathBuf,
    },
    /// The kernel does not let us in.
    #[error("cannot enter network namespace {netns}: {}", enter_remedy(*source))]
    Enter {
        /// Which one.
        netns: String,
        /// What the kernel said.
        source: Errno,
    },
    /// No new one could be made.
    #[error("cannot make a network namespace: {}", enter_remedy(*source))]
    Create {
        /// What the kernel said.
        source: Errno,
    },
    /// No thread could be started.
    #[error("cannot start a thread for network namespace {netns}")]
    Thread {
        /// Which one.
        netns: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::at(Path::new(CURRENT))
    }

    /// Opens a namespace by the name that `ip netns` gave it or by the number of a process that lives in it. A name
    /// made of digits wins over the process. Enters it once, so that lacking rights show here and not later.
    pub fn open(name_or_pid: &str) -> Result<Self, NetnsError> {
        let path = path_of(name_or_pid).ok_or_else(|| NetnsError::Unknown {
            wanted: name_or_pid.to_owned(),
            existing: existing_names(),
        })?;
        let netns = Self::from_path(&path, Some(Arc::from(name_or_pid)))?;
        match netns.run(|| ()) {
            Err(NetnsError::Enter { source: Errno::EINVAL, .. }) => Err(NetnsError::NotNetns { path }),
            Err(error) => Err(error),
            Ok(()) => Ok(netns),
        }
    }

    /// Opens the namespace that a file stands for.
    pub(crate) fn at(path: &Path) -> Result<Self, NetnsError> {
        Self::from_path(path, None)
    }

    /// Makes a new, empty namespace that has no name and ends with its last descriptor, socket and process.
    pub fn unnamed() -> Result<Self, NetnsError> {
        let made = on_own_thread("a new one", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|source| NetnsError::Create { source })?;
            Self::current()
        });
        made?
    }

    /// Runs `work` inside, on a thread of its own, and returns what it returns. A panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_own_thread(&self.label(), || {
            // Whoever is inside already needs no privilege.
            if Self::current()? != *self {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|source| NetnsError::Enter { netns: self.label(), source })?;
            }
            Ok(work())
        })?
    }

    /// What tells it apart from others.
    pub const fn identity(&self) -> NetnsIdentity {
        self.identity
    }

    /// The name or process number by which it was opened.
    pub const fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    fn from_path(path: &Path, name: Option<Arc<str>>) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let identity = NetnsIdentity { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { file: Arc::new(file), name, identity })
    }

    fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| format!("net:[{}]", self.identity.inode), ToString::to_string)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

/// The namespaces that have a name, sorted. Empty where there are none or they cannot be listed.
pub fn existing_names() -> Vec<String> {
    let Ok(directory) = fs::read_dir(NAMED) else { return Vec::new() };
    let mut names: Vec<String> =
        directory.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn path_of(name_or_pid: &str) -> Option<PathBuf> {
    if name_or_pid.is_empty() || name_or_pid.contains('/') || name_or_pid.starts_with('.') {
        return None;
    }
    let named = Path::new(NAMED).join(name_or_pid);
    if named.exists() {
        return Some(named);
    }
    let pid: u32 = name_or_pid.parse().ok()?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    process.exists().then(|| process.join("ns/net"))
}

fn on_own_thread<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name("weir-netns".to_owned()).spawn_scoped(scope, work);
        let thread = spawned.map_err(|source| NetnsError::Thread { netns: netns.to_owned(), source })?;
        Ok(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

fn existing_namespaces(existing: &[String]) -> String {
    if existing.is_empty() {
        "there are no named ones, give the number of a process".to_owned()
    } else {
        format!("existing names: {}", existing.join(", "))
    }
}

fn open_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "needs CAP_SYS_PTRACE for the process of another user",
        io::ErrorKind::NotFound => "it is gone",
        _ => "the file cannot be read",
    }
}

const fn enter_remedy(source: Errno) -> &'static str {
    match source {
        Errno::EPERM => "needs CAP_SYS_ADMIN",
        Errno::ENOSPC | Errno::ENOMEM => "the kernel's limit is reached (user.max_net_namespaces)",
        _ => "the kernel refused",
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn our_own_namespace_has_one_identity_however_it_is_opened() {
        let current = Netns::current().unwrap();
        assert_eq!(current, Netns::current().unwrap());
        assert_eq!(current.name(), None);
        let by_pid = Netns::open(&process::id().to_string()).unwrap();
        assert_eq!(by_pid.identity(), current.identity());
    }

    #[test]
    fn what_is_no_name_and_no_process_is_refused_with_what_exists() {
        for wanted in ["", "nosuchnamespace", "../run", "a/b", ".", "0", "99999999999"] {
            let error = Netns::open(wanted).unwrap_err();
            assert!(matches!(error, NetnsError::Unknown { .. }), "{wanted}: {error:?}");
            assert!(error.to_string().starts_with(&format!("no network namespace or process {wanted}: ")));
        }
    }
}
