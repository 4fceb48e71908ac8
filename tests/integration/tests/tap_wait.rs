//! A tap sleeps while there is nothing, and is woken by what comes next.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{Usage, UsageWho, getrusage},
    unistd::gettid,
};
use weir_datapath::tap::{Rule, Settings};
use weir_integration::{
    require_root,
    tapping::{Recorder, connection, own_rule},
};

/// Longer than anything takes here.
const LONG: Duration = Duration::from_mins(1);

/// A tap of the connections to a listener.
fn tap() -> Option<(Recorder, TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let port = listener.local_addr().expect("it listens").port();
    let rule = Rule { ports: vec![port..=port], ..own_rule(5) };
    Some((Recorder::open(&Settings::default(), &[rule])?, listener))
}

/// Takes what waits, and waits until nothing more comes for a while.
fn settle(recorder: &mut Recorder) {
    loop {
        recorder.tap.wait(Duration::from_millis(20)).expect("waiting works");
        if recorder.read() == 0 {
            return;
        }
    }
}

fn usage() -> Usage {
    getrusage(UsageWho::RUSAGE_THREAD).expect("one may ask for that")
}

/// Waits until a thread of this process sleeps.
fn until_asleep(thread: nix::unistd::Pid) {
    let end = Instant::now() + LONG;
    let is_asleep = || {
        let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("it is there");
        let mut states = status.lines().filter_map(|line| line.strip_prefix("State:"));
        states.any(|state| state.trim_start().starts_with('S'))
    };
    while !is_asleep() {
        assert!(Instant::now() < end, "it never sleeps");
        thread::yield_now();
    }
}

#[test]
fn a_tap_to_which_nothing_comes_does_not_run() {
    if !require_root() {
        return;
    }
    let Some((mut recorder, _listener)) = tap() else { return };
    settle(&mut recorder);
    let (before, start) = (usage(), Instant::now());
    for _ in 0..10 {
        recorder.tap.wait(Duration::from_millis(101)).expect("waiting works");
        assert_eq!(recorder.read(), 0);
    }
    let after = usage();
    assert!(start.elapsed() >= Duration::from_secs(1), "it does wait");
    let switches = after.voluntary_context_switches() - before.voluntary_context_switches();
    assert!(switches <= 40, "it woke {switches} times in ten waits");
    let times = [before, after].map(|usage| usage.user_time() + usage.system_time());
    let micros = (times[1] - times[0]).tv_sec() * 1_000_000 + (times[1] - times[0]).tv_usec();
    // A thousandth of it is what it takes; it was a fifth once, when the end of each wait was waited for without sleeping.
    assert!(micros < 100_000, "it ran for {micros} us of a second");
}

#[test]
fn bytes_end_a_wait_however_few_they_are() {
    if !require_root() {
        return;
    }
    let Some((mut recorder, listener)) = tap() else { return };
    let (mut client, mut server, [_, id]) = connection(&listener, listener.local_addr().expect("it listens"));
    for number in 0..3_u8 {
        settle(&mut recorder);
        let (reader, start) = (gettid(), Instant::now());
        thread::scope(|scope| {
            scope.spawn(|| {
                until_asleep(reader);
                client.write_all(&[number]).expect("loopback works");
                server.read_exact(&mut [0]).expect("loopback works");
            });
            recorder.tap.wait(LONG).expect("waiting works");
        });
        assert!(start.elapsed() < LONG / 2, "it was not woken");
        recorder.read_until("the byte", |recorder| {
            recorder.told.get(&id).is_some_and(|told| told.pieces[1].len() == usize::from(number) + 1)
        });
    }
}

#[test]
fn the_end_of_a_connection_ends_a_wait() {
    if !require_root() {
        return;
    }
    let Some((mut recorder, listener)) = tap() else { return };
    let (mut client, mut server, ids) = connection(&listener, listener.local_addr().expect("it listens"));
    client.write_all(&[1]).expect("loopback works");
    server.read_exact(&mut [0]).expect("loopback works");
    settle(&mut recorder);
    let (reader, start) = (gettid(), Instant::now());
    thread::scope(|scope| {
        scope.spawn(move || {
            until_asleep(reader);
            drop((client, server));
        });
        recorder.tap.wait(LONG).expect("waiting works");
    });
    assert!(start.elapsed() < LONG / 2, "it was not woken");
    recorder.closing(ids[0]);
}
