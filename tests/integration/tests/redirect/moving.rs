//! A table of connections that gets another size where something is in the way.

use std::{
    fs, iter,
    process::{Command, Stdio},
};

use weir_datapath::redirect::{RedirectError, RuleState};
use weir_integration::redirecting::{rule, timeouts};

use super::{resize::diverted, *};

/// The rule whose connections fill a table.
const CROWD: u32 = 9;

/// Entries of the table that they fill.
const ENTRIES: u32 = 64;

fn bpftool(commands: &[String]) {
    let mut bpftool = Command::new("bpftool");
    let mut child = bpftool
        .args(["batch", "file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it is installed");
    child.stdin.take().expect("it is piped").write_all(commands.join("\n").as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{commands:?}");
}

/// Key of a connection of the crowd, in bytes.
fn key(number: u32) -> String {
    let mut bytes = [0_u8; 40];
    bytes[..4].copy_from_slice(&number.to_ne_bytes());
    // The protocol: TCP.
    bytes[36] = 6;
    text(&bytes)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

/// Makes the table that connections are moved to, as a process leaves it that was killed: full.
fn leave_full(next: &str) {
    let mut value = [0_u8; 56];
    value[24..28].copy_from_slice(&CROWD.to_ne_bytes());
    let value = text(&value);
    let table = format!("map create {next} type hash key 40 value 56 entries {ENTRIES} name CONNECTIONS");
    let entry = |number| format!("map update pinned {next} key {} value {value}", key(number));
    let commands: Vec<String> = iter::once(table).chain((0..ENTRIES).map(entry)).collect();
    bpftool(&commands);
}

#[test]
fn a_move_to_a_table_that_is_full_goes_on_as_soon_as_anything_in_it_is_over() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    for (timeout, are_over) in [(Duration::ZERO, true), (Duration::from_hours(45 * 24), false)] {
        let (lan, file_system) = diverted(128);
        let next = file_system.layout().join("maps/CONNECTIONS_NEXT");
        let path = next.to_str().expect("it is plain text");
        let settings = file_system.settings(ENTRIES / 2);
        let streams: Vec<TcpStream> = (0..3).map(|_| connect(&lan.client, "10.0.0.10:12345")).collect();
        let exchange_all = || streams.iter().for_each(|stream| exchange(stream, b"still there"));
        lan.client.run(|| {
            let (mut redirect, _) = file_system.open(128);
            let mut desired = demo();
            let crowd = rule(CROWD, Transport::Tcp, address("10.9.9.9:9"), &[]);
            desired.rules.push(RuleState { timeouts: timeouts(timeout), ..crowd });
            redirect.publish(&desired).unwrap();
        });
        leave_full(path);
        lan.client.run(|| {
            if !are_over {
                for _ in 0..2 {
                    let error = when_free(|| Redirect::open(&settings)).unwrap_err();
                    assert!(
                        matches!(error, RedirectError::Full { capacity } if capacity == ENTRIES / 2),
                        "{error}"
                    );
                    // What is attached works with both tables.
                    exchange_all();
                }
                let over = |number| format!("map delete pinned {path} key {}", key(number));
                let over: Vec<String> = (0..16).map(over).collect();
                bpftool(&over);
            }
            let (redirect, _) = open_when_free(&settings);
            assert_eq!(redirect.counters().unwrap().capacity, u64::from(ENTRIES / 2));
            assert!(!next.exists());
            exchange_all();
            assert_eq!(listed(&redirect, |connection| connection.rule.0 != CROWD), 3);
        });
        teardown(&file_system.root(), false).unwrap();
    }
}

/// The calling thread may make maps from now on, but load no programs for packets.
fn give_up_net_admin() {
    const VERSION: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    let header = [VERSION, 0];
    // Effective, permitted and inheritable ones, then the same of higher numbers.
    let mut sets = [0_u32; 6];
    // SAFETY: both are as long as the version says, and outlive the call.
    let outcome = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(outcome, 0);
    sets[0] &= !(1 << NET_ADMIN | 1 << SYS_ADMIN);
    // SAFETY: as above.
    let outcome = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(outcome, 0);
}

#[test]
fn another_size_whose_programs_cannot_be_loaded_leaves_nothing_behind() {
    if !require_root() {
        return;
    }
    let (lan, file_system) = diverted(64);
    let stream = connect(&lan.client, "10.0.0.10:12345");
    let listed = || {
        let maps = fs::read_dir(file_system.layout().join("maps")).expect("it is there");
        let mut names: Vec<_> = maps.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before = listed();
    lan.client.run(|| {
        give_up_net_admin();
        let error = when_free(|| Redirect::open(&file_system.settings(128))).unwrap_err();
        assert!(matches!(error, RedirectError::Load(_)), "{error}");
    });
    assert_eq!(listed(), before);
    exchange(&stream, b"still there");
    lan.client.run(|| {
        for (capacity, before) in [(64, None), (128, Some(64))] {
            let (_, start) = file_system.open(capacity);
            assert_eq!(start, Start::TookOver { connections: 1, resized_from: before });
            exchange(&stream, b"still there");
        }
    });
    teardown(&file_system.root(), false).unwrap();
}

#[test]
fn an_interface_that_was_renamed_keeps_its_connections_when_their_table_gets_another_size() {
    if !require_root() {
        return;
    }
    let (lan, file_system) = diverted(64);
    let stream = connect(&lan.client, "10.0.0.10:12345");
    for command in ["link set up0 down", "link set up0 name wan0", "link set wan0 up"] {
        lan.client.ip(command);
    }
    exchange(&stream, b"under another name");
    lan.client.run(|| {
        let (redirect, start) = file_system.open(128);
        assert_eq!(start, Start::TookOver { connections: 1, resized_from: Some(64) });
        exchange(&stream, b"in another table");
        let later = connect(&lan.client, "10.0.0.10:12345");
        exchange(&later, b"hello");
        // It is in the table that is pinned.
        assert_eq!(listed(&redirect, |_| true), 2);
    });
    lan.client.run(|| {
        teardown(&file_system.root(), false).unwrap();
        assert_eq!(weir_datapath::hook::tcx_programs("wan0").unwrap(), []);
    });
}
