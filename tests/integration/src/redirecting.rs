//! A redirect of a test's own: pins in a BPF file system of its own, rules from a few words.

use std::{ffi::CString, net::SocketAddr, os::unix::ffi::OsStrExt as _, path::PathBuf, time::Duration};

use tempfile::TempDir;
use weir_datapath::redirect::{
    BackendId, BackendState, Desired, Listener, LocalMode, OnEmpty, OnFull, PortPolicy, Ports, Prefix,
    Redirect, RedirectError, RuleId, RuleState, Settings, Standing, Start, Timeouts, Transport,
};

use crate::control_plane::wait;

/// The packets and checksums of the plans' own tests.
#[path = "../../../crates/weir-packet/src/rewrite/reference.rs"]
#[expect(clippy::cast_possible_truncation, reason = "sums are folded, lengths are small")]
pub mod reference;

/// A BPF file system that goes away with this value.
#[derive(Debug)]
pub struct BpfFileSystem {
    directory: TempDir,
}

impl Default for BpfFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl BpfFileSystem {
    /// Mounts one. Needs root.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("weir-bpf-").tempdir().expect("there is room");
        let path = CString::new(directory.path().as_os_str().as_bytes()).expect("no zeros");
        // SAFETY: all strings end with a zero and outlive the call.
        let outcome =
            unsafe { libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
        assert_eq!(outcome, 0, "needs root: {}", std::io::Error::last_os_error());
        Self { directory }
    }

    /// Where a redirect may pin.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("proxy")
    }

    /// Settings with a table of `capacity` connections, and without programs at a cgroup.
    pub fn settings(&self, capacity: u32) -> Settings {
        Settings { root: self.root(), capacity, local: LocalMode::Off, ..Settings::default() }
    }

    /// Opens a redirect in the network namespace of the calling thread.
    pub fn open(&self, capacity: u32) -> (Redirect, Start) {
        open_when_free(&self.settings(capacity))
    }
}

/// Opens a redirect that was closed a moment ago: processes that other tests start hold its lock until they are another
/// program.
pub fn open_when_free(settings: &Settings) -> (Redirect, Start) {
    let mut opened = None;
    wait("the lock is free", || {
        opened = match Redirect::open(settings) {
            Err(RedirectError::Held { .. }) => None,
            outcome => Some(outcome.expect("the object loads")),
        };
        opened.is_some()
    });
    opened.expect("it was waited for")
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        let path = CString::new(self.directory.path().as_os_str().as_bytes()).expect("no zeros");
        // SAFETY: the path ends with a zero. Detached at once; what is pinned ends with the last user.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A rule that sends one address and port (0 for all) to backends, with a small table.
pub fn rule(id: u32, transport: Transport, listen: SocketAddr, backends: &[BackendId]) -> RuleState {
    let length = if listen.is_ipv4() { 32 } else { 128 };
    let ports = if listen.port() == 0 { Ports::ALL } else { Ports::one(listen.port()) };
    let table = if backends.is_empty() {
        [].into()
    } else {
        (0..251).map(|place| backends[place % backends.len()]).collect()
    };
    RuleState {
        id: RuleId(id),
        listener: Listener { transport, prefix: Prefix { address: listen.ip(), length }, ports },
        table,
        affinity: None,
        on_empty: OnEmpty::Reset,
        on_full: OnFull::Drop,
        ports: PortPolicy::OnCollision,
        timeouts: Timeouts::default(),
        new_per_second: None,
    }
}

/// A backend that takes connections.
pub fn backend(id: u32, rule: u32, address: SocketAddr) -> BackendState {
    BackendState { id: BackendId(id), rule: RuleId(rule), address, standing: Standing::Up }
}

/// Rules with one backend each, of the same number.
pub fn one_to_one(pairs: &[(Transport, SocketAddr, SocketAddr)]) -> Desired {
    let mut desired = Desired::default();
    for (id, (transport, listen, to)) in (1_u32..).zip(pairs) {
        desired.rules.push(rule(id, *transport, *listen, &[BackendId(id)]));
        desired.backends.push(backend(id, id, *to));
    }
    desired
}

/// Timeouts that are all the same.
pub const fn timeouts(all: Duration) -> Timeouts {
    Timeouts { syn: all, established: all, closing: all, udp: all, udp_unreplied: all }
}
