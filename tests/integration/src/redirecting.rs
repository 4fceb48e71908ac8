//! A redirect of a test's own: pins in a BPF file system of its own, rules from a few words.

use std::{
    ffi::CString,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use weir_datapath::redirect::{
    BackendId, BackendState, Desired, Listener, LocalMode, OnEmpty, OnFull, Place, PortPolicy, Ports, Prefix,
    Redirect, RedirectError, Removed, Role, RuleId, RuleState, Settings, Standing, Start, Timeouts,
    Transport,
};

use crate::{Namespace, Neighbours, Veth, control_plane::wait};

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

    /// Where one of this build pins.
    pub fn layout(&self) -> PathBuf {
        self.root().join("v2")
    }

    /// Settings with a table of `capacity` connections, and without programs at a cgroup.
    pub fn settings(&self, capacity: u32) -> Settings {
        Settings { root: self.root(), capacity: Some(capacity), local: LocalMode::Off, ..Settings::default() }
    }

    /// Opens a redirect in the network namespace of the calling thread.
    pub fn open(&self, capacity: u32) -> (Redirect, Start) {
        open_when_free(&self.settings(capacity))
    }
}

/// What becomes of an attempt once nobody holds the lock. Processes that other tests start do, until they are another
/// program.
pub fn when_free<T>(mut attempt: impl FnMut() -> Result<T, RedirectError>) -> Result<T, RedirectError> {
    let mut outcome = None;
    wait("the lock is free", || {
        outcome = Some(attempt());
        !matches!(outcome, Some(Err(RedirectError::Held { .. })))
    });
    outcome.expect("it was tried")
}

/// Opens a redirect that was closed a moment ago.
pub fn open_when_free(settings: &Settings) -> (Redirect, Start) {
    when_free(|| Redirect::open(settings)).expect("the object loads")
}

/// Takes everything away.
pub fn teardown(root: &Path, dry_run: bool) -> Result<Vec<Removed>, RedirectError> {
    when_free(|| Redirect::teardown(root, dry_run))
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        let path = CString::new(self.directory.path().as_os_str().as_bytes()).expect("no zeros");
        // SAFETY: the path ends with a zero. Detached at once; what is pinned ends with the last user.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A connection is redirected, and goes on through a start that gives its table another size. Needs root.
pub fn a_connection_outlives_another_size_of_its_table() {
    let (client, server) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&client, "left0"), (&server, "right0"), 1, Neighbours::Resolved);
    client.ip(&format!("route add 10.64.0.0/16 via {}", wire.right.ipv4));
    let listener = server.run(|| TcpListener::bind((wire.right.ipv4, 23456))).expect("nobody listens there");
    let to = listener.local_addr().expect("it listens");
    let listen = SocketAddr::from(([10, 64, 0, 1], 80));
    let file_system = BpfFileSystem::new();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it listens");
        let mut word = [0; 4];
        while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
    });
    client.run(|| {
        let (mut redirect, _) = file_system.open(1024);
        redirect.publish(&one_to_one(&[(Transport::Tcp, listen, to)])).expect("there is room");
        let place = Place { interface: "left0".to_owned(), role: Role::Uplink };
        redirect.attach(&place).expect("the programs fit this kernel");
        let connected = TcpStream::connect_timeout(&listen, Duration::from_secs(20));
        let mut stream = connected.unwrap_or_else(|error| panic!("{error}: {:?}", redirect.counters()));
        drop(redirect);
        let mut exchange = || {
            stream.write_all(b"weir").expect("it is connected");
            stream.read_exact(&mut [0; 4]).expect("it is answered");
        };
        exchange();
        let (_, start) = file_system.open(4096);
        assert_eq!(start, Start::TookOver { connections: 1, resized_from: Some(1024) });
        exchange();
        teardown(&file_system.root(), false).expect("it is ours");
    });
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
