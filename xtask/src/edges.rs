//! The direction of dependencies: which crate of the workspace may use which, and who may name certain outside
//! crates. Reads `cargo metadata`; ARCHITECTURE.md has the reasons.

use anyhow::bail;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each crate may use of the workspace when it runs.
const MAY_USE: &[(&str, &[&str])] = &[
    ("weir", &["weir-agent", "weir-api", "weir-datapath", "weir-flow", "weir-l7", "weir-packet"]),
    ("weir-agent", &["weir-api", "weir-datapath", "weir-flow", "weir-l7", "weir-packet"]),
    ("weir-api", &["weir-flow"]),
    ("weir-datapath", &["weir-common", "weir-flow", "weir-packet"]),
    ("weir-flow", &["weir-packet"]),
    ("weir-l7", &["weir-flow", "weir-packet"]),
    ("weir-packet", &[]),
    ("weir-common", &[]),
    ("weir-ebpf", &["weir-common", "weir-packet"]),
    ("xtask", &[]),
];

/// What they may use only to be built.
const MAY_BUILD_WITH: &[(&str, &[&str])] = &[("weir-datapath", &["weir-ebpf"])];

/// Crates that look at all layers by their nature.
const SEES_ALL: &[&str] = &["weir-integration", "weir-bench"];

/// Outside crates (and those whose names continue theirs) that are reserved, with those who may name them.
const RESERVED: &[(&str, &[&str])] = &[
    ("aya-ebpf", &["weir-ebpf"]),
    ("aya-log-ebpf", &["weir-ebpf"]),
    ("aya-build", &["weir-datapath", "weir-ebpf", "weir-bench"]),
    ("kube", &["weir-agent", "weir-bench", "weir-integration"]),
    ("axum", &["weir-agent"]),
    ("rusqlite", &["weir-agent", "weir-bench"]),
    ("aya", &["weir-datapath", "weir-integration", "weir-bench"]),
];

/// Outside crates that would bring I/O, clocks or an async runtime into the pure crates, or another JSON beside the
/// table of fields. (jiff may be named: it formats times that it is given.)
const NOT_IN_PURE: &[&str] =
    &["chrono", "futures", "libc", "mio", "nix", "rustix", "serde", "serde_json", "socket2", "time", "tokio"];
const PURE: &[&str] = &["weir-common", "weir-packet", "weir-flow", "weir-l7"];

/// Fails with the list of all edges that should not be.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec()?;
    let complaints = complaints(&metadata);
    if !complaints.is_empty() {
        bail!("\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

fn complaints(metadata: &Metadata) -> Vec<String> {
    let mut complaints = Vec::new();
    let members: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        let user = package.name.as_str();
        if !SEES_ALL.contains(&user) && !MAY_USE.iter().any(|(name, _)| *name == user) {
            complaints.push(format!("{user} is in no rule: add it to MAY_USE in xtask/src/edges.rs"));
        }
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let allowed = if members.contains(&used) {
                may_use(user, used, dependency.kind)
            } else {
                may_name(user, used, dependency.kind)
            };
            if !allowed {
                complaints.push(format!("{user} must not depend on {used}"));
            }
        }
    }
    complaints
}

/// Whether one workspace crate may use another. Tests may look upwards, so development edges are free.
fn may_use(user: &str, used: &str, kind: DependencyKind) -> bool {
    if SEES_ALL.contains(&user) || kind == DependencyKind::Development {
        return true;
    }
    let rules = if kind == DependencyKind::Build { MAY_BUILD_WITH } else { MAY_USE };
    rules.iter().any(|(name, uses)| *name == user && uses.contains(&used))
}

/// Whether a crate may name an outside crate.
fn may_name(user: &str, used: &str, kind: DependencyKind) -> bool {
    // The first rule that fits decides: the longer name stands before the shorter one.
    let reserved = RESERVED.iter().find(|(name, _)| {
        used.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    if let Some((_, users)) = reserved {
        return users.contains(&user);
    }
    kind == DependencyKind::Development || !PURE.contains(&user) || !NOT_IN_PURE.contains(&used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        assert!(may_use("weir", "weir-flow", DependencyKind::Normal));
        assert!(!may_use("weir-flow", "weir-datapath", DependencyKind::Normal));
        assert!(may_use("weir-datapath", "weir-ebpf", DependencyKind::Build));
        assert!(!may_use("weir-datapath", "weir-ebpf", DependencyKind::Normal));
        assert!(may_use("weir-bench", "weir-common", DependencyKind::Normal));
    }

    #[test]
    fn the_aya_family_is_reserved_member_by_member() {
        assert!(may_name("weir-datapath", "aya", DependencyKind::Normal));
        assert!(may_name("weir-datapath", "aya-build", DependencyKind::Build));
        assert!(!may_name("weir", "aya-obj", DependencyKind::Normal));
        assert!(!may_name("weir-datapath", "aya-ebpf", DependencyKind::Normal));
        assert!(may_name("weir-ebpf", "aya-ebpf", DependencyKind::Normal));
        assert!(!may_name("weir-flow", "tokio", DependencyKind::Normal));
        assert!(may_name("weir-flow", "serde_json", DependencyKind::Development));
    }
}
