//! What a process that was killed while it published has left half written.

use std::process::Command;

use serde_json::Value;

use super::*;

/// Takes everything out of a map of the layout.
fn empty(file_system: &BpfFileSystem, map: &str) {
    let path = file_system.layout().join("maps").join(map);
    let bpftool = |arguments: &[&str]| {
        let output = Command::new("bpftool").args(arguments).output().expect("it is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let pinned = path.to_str().expect("it is UTF-8");
    let entries = bpftool(&["-j", "map", "dump", "pinned", pinned]);
    let entries: Value = serde_json::from_slice(&entries).expect("it is JSON");
    for entry in entries.as_array().expect("it is a list") {
        let key = entry["key"].as_array().expect("bytes");
        let key: Vec<&str> = key.iter().map(|byte| byte.as_str().expect("it is written in hex")).collect();
        bpftool(&[&["map", "delete", "pinned", pinned, "key"], &*key].concat());
    }
}

#[test]
fn a_rule_that_nothing_leads_to_is_completed_by_the_next_start() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    for map in ["LISTENERS", "PREFIXES"] {
        let lan = Lan::new();
        serve(&lan.server, &["10.0.0.138:23456"]);
        let file_system = BpfFileSystem::new();
        lan.client.run(|| {
            let (mut redirect, _) = file_system.open(64);
            redirect.publish(&demo()).expect("there is room");
            redirect.attach(&place("up0", Role::Uplink)).expect("it is there");
        });
        exchange(&connect(&lan.client, "10.0.0.10:12345"), b"whole");
        empty(&file_system, map);
        lan.client.run(|| {
            let (mut redirect, _) = file_system.open(64);
            // The rule itself is what it should be.
            assert_eq!(redirect.published().expect("it can be read"), demo());
            redirect.publish(&demo()).expect("there is room");
        });
        exchange(&connect(&lan.client, "10.0.0.10:12345"), b"whole again");
    }
}
