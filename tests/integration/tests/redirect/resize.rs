//! Another size of the table of connections, while connections carry bytes and new ones begin.

use std::{
    env,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_datapath::redirect::{ConnectionState, RedirectError};
use weir_integration::control_plane::wait;

use super::*;

/// Connections that last as long as the test.
const LASTING: usize = 20;

/// Which pins a process that is to be killed opens, and with how many connections.
const ROOT: &str = "WEIR_TEST_RESIZE_ROOT";
const CAPACITY: &str = "WEIR_TEST_RESIZE_CAPACITY";

/// Says so when it goes away, however that comes about.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exchange_all(streams: &[TcpStream]) {
    for stream in streams {
        exchange(stream, b"still there");
    }
}

/// Runs `work` while connections carry bytes and others begin and end, none of which may fail.
fn under_traffic(lan: &Lan, work: impl FnOnce() + Send) {
    let lasting: Vec<TcpStream> = (0..LASTING).map(|_| connect(&lan.client, "10.0.0.10:12345")).collect();
    let (is_over, begun) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for chunk in lasting.chunks(LASTING / 2) {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    exchange_all(chunk);
                }
                exchange_all(chunk);
            });
        }
        for listen in ["10.0.0.10:12345", "[fd00::10]:12345"] {
            let (is_over, begun) = (&is_over, &begun);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // So much, because not more shall begin than tables of this test are made for.
                    exchange(&connect(&lan.client, listen), &megabyte());
                    begun.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let _end = End(&is_over);
            lan.client.run(work);
        });
    });
    assert!(begun.load(Ordering::Relaxed) > 0);
}

/// A client whose connections are redirected, as many as that.
pub(super) fn diverted(capacity: u32) -> (Lan, BpfFileSystem) {
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456", "[fd00::138]:23456"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(capacity);
        redirect.publish(&demo()).expect("there is room");
        redirect.attach(&place("up0", Role::Uplink)).expect("it is there");
    });
    (lan, file_system)
}

#[test]
fn the_table_of_connections_grows_and_shrinks_and_no_connection_notices() {
    if !require_root() {
        return;
    }
    let (lan, file_system) = diverted(50_000);
    under_traffic(&lan, || {
        for (before, capacity) in [(50_000, 100_000), (100_000, 30_000), (30_000, 60_000)] {
            let (redirect, start) = file_system.open(capacity);
            let Start::TookOver { connections, resized_from } = start else { panic!("{start:?}") };
            assert!(connections >= LASTING as u64 && resized_from == Some(before), "{start:?}");
            let counters = redirect.counters().unwrap();
            assert_eq!(counters.capacity, u64::from(capacity));
            let count = |name: &str| {
                let reasons = counters.rules.values().flat_map(|rule| &rule.reasons).chain(&counters.other);
                reasons.filter(|(reason, _)| reason.name() == name).map(|(_, count)| count).sum::<u64>()
            };
            assert_eq!((count("full_dropped"), count("repaired"), count("port_changed")), (0, 0, 0));
            assert!(listed(&redirect, |_| true) >= connections);
        }
        // Less than what is there: nothing changes.
        let few = u32::try_from(LASTING).unwrap();
        let error = when_free(|| Redirect::open(&file_system.settings(few))).unwrap_err();
        assert!(matches!(error, RedirectError::Capacity { wanted, .. } if wanted == few), "{error}");
        let settings = weir_datapath::redirect::Settings { capacity: None, ..file_system.settings(1) };
        let (redirect, start) = open_when_free(&settings);
        assert!(matches!(start, Start::TookOver { resized_from: None, .. }), "{start:?}");
        assert_eq!(redirect.counters().unwrap().capacity, 60_000);
    });
    // All have closed, which is known of each of them.
    wait("no connection is open", || {
        let redirect = Redirect::peek(&file_system.root()).unwrap().expect("it is pinned");
        listed(&redirect, |connection| connection.state != ConnectionState::Closing) == 0
    });
    assert!(teardown(&file_system.root(), false).unwrap().len() > 10);
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn a_process_to_be_killed_gives_the_table_another_size() {
    let (Ok(root), Ok(capacity)) = (env::var(ROOT), env::var(CAPACITY)) else { return };
    let settings = weir_datapath::redirect::Settings {
        root: root.into(),
        capacity: capacity.parse().ok(),
        local: weir_datapath::redirect::LocalMode::Off,
        cgroup: None,
    };
    drop(open_when_free(&settings));
}

#[test]
fn a_kill_while_the_table_gets_another_size_is_mended_by_the_next_start() {
    if !require_root() {
        return;
    }
    let (lan, file_system) = diverted(20_000);
    let child = |capacity: u32| -> Command {
        let mut child = lan.client.command(env::current_exe().expect("it runs"));
        child.args(["--exact", "resize::a_process_to_be_killed_gives_the_table_another_size"]);
        child.env(ROOT, file_system.root()).env(CAPACITY, capacity.to_string());
        child.stdout(Stdio::piped()).stderr(Stdio::null());
        child
    };
    let next = file_system.layout().join("maps/CONNECTIONS_NEXT");
    under_traffic(&lan, || {
        let start = Instant::now();
        assert!(child(30_000).status().unwrap().success());
        let whole = start.elapsed();
        let mut half_done = 0;
        for step in 0..12_u32 {
            let mut killed = child(40_000 + step * 1000).spawn().unwrap();
            // Its output ends when it does.
            let output = killed.stdout.take().unwrap();
            let wait = |delay: Duration| {
                let delay = PollTimeout::try_from(delay).unwrap();
                poll(&mut [PollFd::new(output.as_fd(), PollFlags::empty())], delay).unwrap() > 0
            };
            // Every other one dies when it has begun, the rest at another part of its work each time.
            if step % 2 == 0 {
                while !next.exists() && !wait(Duration::from_millis(1)) {}
            } else {
                wait(whole * (step + 2) / 14);
            }
            killed.kill().unwrap();
            killed.wait().unwrap();
            half_done += u32::from(next.exists());
            if step % 3 == 2 {
                let (redirect, _) = file_system.open(20_000 + step);
                assert_eq!(redirect.counters().unwrap().capacity, u64::from(20_000 + step));
                assert!(!next.exists());
            }
        }
        assert!(half_done > 0, "nobody was killed half way; a whole one takes {whole:?}");
    });
    teardown(&file_system.root(), false).unwrap();
    assert!(!file_system.root().exists());
}
