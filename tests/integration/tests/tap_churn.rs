//! Connections that are opened and closed as fast as this machine can, under a `weir tap` as a user runs it: each is
//! accounted for, and memory stays where it is.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process, thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use serde_json::Value;
use weir_integration::{
    Namespace,
    memory::{maps_kib, peak_kib},
    require_root,
    tap_command::{TapCommand, Tapped},
};

/// Threads that open and close, each with a listener of its own.
const THREADS: u8 = 4;

/// How long.
const TIME: Duration = Duration::from_secs(3);

/// Most memory of the tap besides the kernel's rings, in KiB: 33 MiB of it may wait for a disk.
const MEMORY_KIB: u64 = 96 << 10;

const REQUEST: &[u8] = b"GET /one HTTP/1.1\r\nHost: churn\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// Opens and closes connections to a listener until the time is over, and returns how many there were. Both ends are ours.
fn churn(listener: &TcpListener) -> u64 {
    let to = listener.local_addr().expect("it listens");
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < TIME {
        let mut client = TcpStream::connect(to).expect("somebody listens");
        let (mut server, _) = listener.accept().expect("a connection waits");
        let mut buffer = [0; 64];
        client.write_all(REQUEST).expect("loopback works");
        server.read_exact(&mut buffer[..REQUEST.len()]).expect("loopback works");
        server.write_all(RESPONSE).expect("loopback works");
        client.read_exact(&mut buffer[..RESPONSE.len()]).expect("loopback works");
        // Nobody waits for stray segments afterwards, so ports are free again.
        setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("it is a socket");
        if count % 2 == 0 {
            // The server ends it, and the client leaves.
            drop(server);
            assert_eq!(client.read(&mut buffer).expect("loopback works"), 0);
        } else {
            // The client breaks it off.
            drop(client);
            assert_eq!(
                server.read(&mut buffer).map_err(|error| error.kind()),
                Err(ErrorKind::ConnectionReset)
            );
        }
        count += 1;
    }
    count
}

/// What a run came to.
struct Churned {
    /// Connections that were made.
    made: u64,
    /// Ends of connections of which nothing was told, because the tap could not keep up.
    untold: u64,
    tapped: Tapped,
}

/// How many of something a tap has counted.
fn counted(tapped: &Tapped, what: &str) -> u64 {
    let line = tapped.messages.lines().find_map(|line| line.strip_suffix(what));
    line.map_or(0, |number| number.trim().replace(',', "").parse().expect("it is a number"))
}

/// Has threads open and close connections under a tap with these arguments.
fn churn_under_tap(arguments: &[&str]) -> Option<Churned> {
    if !require_root() {
        return None;
    }
    let namespace = Namespace::new();
    let listeners: Vec<TcpListener> = namespace.run(|| {
        let addresses = (1..=THREADS).map(|last| Ipv4Addr::new(127, 0, 1, last));
        addresses.map(|address| TcpListener::bind((address, 0)).expect("the namespace is ours")).collect()
    });
    let ports =
        listeners.iter().map(|listener| listener.local_addr().expect("it listens").port().to_string());
    let filter = format!("port in {}", ports.collect::<Vec<_>>().join(","));
    let own = process::id().to_string();
    let tap = TapCommand::start(&[&["--pid", &own, &filter][..], arguments].concat());
    let before = peak_kib(tap.pid());
    let start = Instant::now();
    let made = thread::scope(|scope| {
        let (scope, namespace) = (scope, &namespace);
        let spawn = |listener| scope.spawn(move || namespace.run(|| churn(listener)));
        let threads: Vec<_> = listeners.iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum::<u64>()
    });
    let rate = u128::from(made) * 1000 / start.elapsed().as_millis();
    let (peak, maps) = (peak_kib(tap.pid()), maps_kib(tap.pid()));
    let tapped = tap.end();
    println!(
        "{arguments:?}: {made} connections, {rate} a second, {} KiB and {maps} KiB of maps",
        peak - maps
    );
    println!("  {before} KiB with maps before; {}", tapped.messages);
    tapped.check(&[]);
    assert!(peak - maps < MEMORY_KIB, "{peak} KiB, of which {maps} KiB are maps");
    // Each has two ends.
    let note = tapped.audit.lines().last().expect("its end was noted");
    let note: Value = serde_json::from_str(note).expect("it is JSON");
    let untold = counted(&tapped, " connections that there was no room to tell of");
    assert_eq!(note["connections"], made * 2 - untold, "{}", tapped.messages);
    assert_eq!(note["seen_bytes"], made * 2 * (REQUEST.len() + RESPONSE.len()) as u64, "{}", tapped.messages);
    assert!(tapped.messages.contains(" connections, 0 open at the end"), "{}", tapped.messages);
    Some(Churned { made, untold, tapped })
}

#[test]
fn every_call_of_thousands_of_connections_a_second_is_accounted_for() {
    for tier in ["s", "t"] {
        let arguments = ["--tier", tier, "--payload", "full", "-o", "json", "-w", "/dev/null"];
        let Some(Churned { made, untold, tapped }) = churn_under_tap(&arguments) else { return };
        if untold == 0 && !tapped.messages.contains(" lost ") {
            let calls = format!("; {} calls: http", made * 2);
            assert!(tapped.messages.replace(',', "").contains(&calls), "{}", tapped.messages);
        }
    }
}

#[test]
fn each_of_thousands_of_connections_a_second_has_a_ledger_that_adds_up() {
    let arguments = ["--payload", "none", "-o", "json"];
    let Some(Churned { made, untold, tapped }) = churn_under_tap(&arguments) else { return };
    let sizes = [REQUEST.len() as u64, RESPONSE.len() as u64];
    let mut ends = [0; 2];
    for line in tapped.output.lines() {
        let told: Value = serde_json::from_str(line).expect("it is JSON");
        let is_server = usize::from(told["tap.role"] == "server");
        ends[is_server] += 1;
        for (way, seen) in ["sent", "received"].into_iter().zip([sizes[is_server], sizes[1 - is_server]]) {
            let number = |name| told[format!("tap.{way}.{name}")].as_u64();
            assert_eq!(["seen", "captured", "unseen"].map(number), [Some(seen), Some(0), Some(0)], "{told}");
            let left_out = number("gap.payload").unwrap_or(0) + number("lost").unwrap_or(0);
            assert_eq!(left_out, seen, "{told}");
        }
    }
    assert!(ends.iter().all(|count| *count <= made), "{ends:?}");
    assert_eq!(ends.iter().sum::<u64>(), 2 * made - untold);
}
