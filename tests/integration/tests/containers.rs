//! Containers by the control groups of this machine.

use weir_agent::enrich::{ContainerEnricher, Containers, Enrich as _};
use weir_flow::{Record, field::Value, rebuild::record_of};
use weir_integration::{cgroup::ControlGroup, control_plane::wait, require_root};

/// A record whose source is the socket of this group or process.
fn record(group: Option<u64>, pid: Option<u32>) -> Record {
    record_of(&|name| match name {
        "source.cgroup.id" => group.map_or(Value::Absent, Value::Integer),
        "source.process.pid" => pid.map_or(Value::Absent, |pid| Value::Integer(pid.into())),
        "source.process.executable.name" if pid.is_some() => Value::Text("sleep".into()),
        "source.process.confidence" if pid.is_some() => Value::Text("proven".into()),
        "flow.detail" => Value::Text("flow".into()),
        _ => Value::Absent,
    })
}

fn container(enricher: &ContainerEnricher, record: &Record) -> Option<String> {
    let mut records = [record.clone()];
    enricher.enrich(&mut records);
    records[0].source.identity.container.as_ref().map(|container| container.id.to_string())
}

#[test]
fn a_container_that_starts_and_ends_is_known_by_its_control_group() {
    if !require_root() {
        return;
    }
    let (containers, _watch) = Containers::watch().unwrap();
    let enricher = ContainerEnricher::new(containers);
    let id = "5a".repeat(32);
    let Some(group) = ControlGroup::make(&format!("docker-{id}.scope")) else { return };
    let record = record(Some(group.id()), None);
    wait("the container", || container(&enricher, &record).as_deref() == Some(&*id));

    // Records of its last second come when it is gone.
    drop(group);
    let other = "5b".repeat(32);
    let Some(group) = ControlGroup::make(&format!("libpod-{other}.scope")) else { return };
    let later = self::record(Some(group.id()), None);
    wait("the next container", || container(&enricher, &later).as_deref() == Some(&*other));
    assert_eq!(container(&enricher, &record).as_deref(), Some(&*id));
}

#[test]
fn a_socket_without_a_control_group_is_found_by_its_process() {
    if !require_root() {
        return;
    }
    let id = "5c".repeat(32);
    let Some(mut group) = ControlGroup::make(&format!("cri-containerd-{id}.scope")) else { return };
    let pid = group.start_process();
    let (containers, _watch) = Containers::watch().unwrap();
    let enricher = ContainerEnricher::new(containers);
    let record = record(None, Some(pid));
    wait("the container", || container(&enricher, &record).as_deref() == Some(&*id));
    assert!(enricher.misses()[0].ends > 0, "the first question came before the answer");
}
