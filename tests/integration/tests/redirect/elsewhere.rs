//! What another build or another network namespace has left.

use std::fs;

use weir_datapath::redirect::{PlaceHook, RedirectError};

use super::{places::write_place, *};

/// Attaches by this hook, as a process that was killed since.
fn attach(lan: &Lan, file_system: &BpfFileSystem, hook: PlaceHook) {
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        redirect.publish(&demo()).expect("there is room");
        write_place(file_system, &lan.client, "up0", hook);
        assert_eq!(redirect.attach(&place("up0", Role::Uplink)).expect("it is there").hook, hook);
    });
}

fn filters(lan: &Lan, interface: &str) -> String {
    ["ingress", "egress"].map(|way| lan.client.tc(&format!("filter show dev {interface} {way}"))).concat()
}

#[test]
fn what_a_build_with_other_layouts_left_is_refused_while_it_diverts_and_removed_whatever_it_is() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    for hook in [PlaceHook::Tcx, PlaceHook::Clsact] {
        let lan = Lan::new();
        serve(&lan.server, &["10.0.0.138:23456"]);
        let file_system = BpfFileSystem::new();
        let root = file_system.root();
        let of_another_build = || fs::rename(file_system.layout(), root.join("v1")).unwrap();
        attach(&lan, &file_system, hook);
        let stream = connect(&lan.client, "10.0.0.10:12345");
        of_another_build();
        lan.client.run(|| {
            let error = when_free(|| Redirect::open(&file_system.settings(64))).unwrap_err();
            assert!(matches!(&error, RedirectError::OtherLayout { path } if path.ends_with("v1")), "{error}");
            assert!(!file_system.layout().exists());
            assert!(matches!(Redirect::peek(&root), Err(RedirectError::OtherLayout { .. })));
            exchange(&stream, b"still there");
            let would: Vec<String> = teardown(&root, true).unwrap().iter().map(ToString::to_string).collect();
            exchange(&stream, b"still there");
            let did: Vec<String> = teardown(&root, false).unwrap().iter().map(ToString::to_string).collect();
            // What is above the layouts goes last, and is not said before.
            assert!(did.starts_with(&would), "{would:?} {did:?}");
            assert!(!root.exists());
            assert_eq!(weir_datapath::hook::tcx_programs("up0").unwrap(), []);
            assert_eq!(filters(&lan, "up0"), "");
        });
        // What does not divert any more is no hindrance.
        attach(&lan, &file_system, hook);
        of_another_build();
        lan.client.ip("link delete up0");
        lan.client.run(|| {
            assert_eq!(file_system.open(64).1, Start::Fresh);
            assert!(!root.join("v1").exists());
        });
    }
}

#[test]
fn filters_in_another_network_namespace_are_not_forgotten_as_long_as_that_is_there() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    for is_of_another_build in [false, true] {
        let (lan, other) = (Lan::new(), Lan::new());
        serve(&lan.server, &["10.0.0.138:23456"]);
        let file_system = BpfFileSystem::new();
        let root = file_system.root();
        attach(&lan, &file_system, PlaceHook::Clsact);
        if is_of_another_build {
            fs::rename(file_system.layout(), root.join("v1")).unwrap();
        }
        let stream = connect(&lan.client, "10.0.0.10:12345");
        other.client.run(|| {
            for outcome in [
                when_free(|| Redirect::open(&file_system.settings(64))).map(drop),
                teardown(&root, true).map(drop),
                teardown(&root, false).map(drop),
            ] {
                let error = outcome.unwrap_err();
                assert!(matches!(error, RedirectError::OtherNamespace { .. }), "{error}");
            }
        });
        exchange(&stream, b"still there");
        drop((lan, stream));
        other.client.run(|| {
            // Nobody can go there any more, whatever sockets of it may still be open. A process that another test starts may
            // hold it for a moment.
            let end = Instant::now() + Duration::from_mins(1);
            let (redirect, start) = loop {
                match when_free(|| Redirect::open(&file_system.settings(64))) {
                    Err(RedirectError::OtherNamespace { .. }) if Instant::now() < end => thread::yield_now(),
                    outcome => break outcome.unwrap(),
                }
            };
            assert_eq!(start == Start::Fresh, is_of_another_build);
            assert!(redirect.places().is_empty());
            drop(redirect);
            teardown(&root, false).unwrap();
        });
        assert!(!root.exists());
    }
}

#[test]
fn a_network_namespace_without_our_filters_is_another_one_of_the_same_number() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let (lan, other) = (Lan::new(), Lan::new());
    let file_system = BpfFileSystem::new();
    let strand = || write_place(&file_system, &lan.client, "up0", PlaceHook::Clsact);
    other.client.run(|| {
        drop(file_system.open(64));
        strand();
        assert!(file_system.open(64).0.places().is_empty());
        strand();
        teardown(&file_system.root(), false).unwrap();
    });
    assert!(!file_system.root().exists());
}

#[test]
fn another_root_on_the_same_interface_keeps_its_filters() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    let (theirs, ours) = (BpfFileSystem::new(), BpfFileSystem::new());
    attach(&lan, &theirs, PlaceHook::Clsact);
    let stream = connect(&lan.client, "10.0.0.10:12345");
    let before = filters(&lan, "up0");
    let attach_ours = || {
        attach(&lan, &ours, PlaceHook::Clsact);
        fs::rename(ours.layout(), ours.root().join("v1")).unwrap();
        assert_ne!(filters(&lan, "up0"), before);
    };
    attach_ours();
    lan.client.run(|| {
        let error = when_free(|| Redirect::open(&ours.settings(64))).unwrap_err();
        assert!(matches!(error, RedirectError::OtherLayout { .. }), "{error}");
        teardown(&ours.root(), false).unwrap();
    });
    assert_eq!(filters(&lan, "up0"), before);
    attach_ours();
    for direction in ["ingress", "egress"] {
        lan.client.tc(&format!("filter delete dev up0 {direction} prio 50"));
    }
    // Those of others do not keep ours from a start.
    assert_eq!(lan.client.run(|| ours.open(64).1), Start::Fresh);
    assert!(!ours.root().join("v1").exists());
    assert_eq!(filters(&lan, "up0"), before);
    exchange(&stream, b"still there");
    lan.client.run(|| teardown(&theirs.root(), false).unwrap());
    assert_eq!(filters(&lan, "up0"), "");
}

#[test]
fn filters_leave_an_interface_whose_name_another_one_has_now() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let lan = Lan::new();
    let file_system = BpfFileSystem::new();
    attach(&lan, &file_system, PlaceHook::Clsact);
    lan.client.ip("link set up0 down");
    lan.client.ip("link set up0 name up1");
    lan.client.ip("link add up0 type veth peer name up2");
    assert_ne!(filters(&lan, "up1"), "");
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        let changes = redirect.refresh().unwrap();
        assert!(matches!(&changes[..], [PlaceChange::Attached { .. }]), "{changes:?}");
        assert_eq!(filters(&lan, "up1"), "");
        assert!(redirect.places()[0].is_alive);
    });
}
