//! The control plane of Kubernetes for the tests: one binary that is API server, etcd, controller manager, scheduler
//! or kubectl by the name that it is called with.
//!
//! It is built from `tests/control-plane` once per machine, and again only if its sources, the flags or Go change. The
//! first time takes ten minutes and 3 GB of Go's build cache; the binary, 130 MB, is all that is needed afterwards.

use std::{
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::command;

/// Variable by which the tests find the binary.
pub(crate) const VARIABLE: &str = "WEIR_CONTROL_PLANE";

/// The module.
const SOURCE: &str = "tests/control-plane";

/// Packages whose variables tell the version, each with what it knows.
const VERSION: &[(&str, &[(&str, &str)])] = &[
    (
        "k8s.io/component-base/version",
        &[
            ("gitVersion", "v1.35.4"),
            ("gitMajor", "1"),
            ("gitMinor", "35"),
            ("gitTreeState", "clean"),
            ("gitCommit", "0000000000000000000000000000000000000000"),
            ("buildDate", "2026-01-01T00:00:00Z"),
        ],
    ),
    ("k8s.io/client-go/pkg/version", &[("gitVersion", "v1.35.4")]),
];

/// Whether it can be built here.
pub(crate) fn has_go() -> bool {
    command::find("go").is_some()
}

/// Where the binary is, or will be once it is built.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    let mut key = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        fs::read(Path::new(SOURCE).join(file))
            .with_context(|| format!("cannot read {SOURCE}/{file}"))?
            .hash(&mut key);
    }
    link_flags().hash(&mut key);
    command::output(Command::new("go").arg("version"))?.hash(&mut key);
    Ok(command::cache_directory()?.join(format!("control-plane-{:016x}/control-plane", key.finish())))
}

/// Builds it.
pub(crate) fn build(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().expect("the binary lies in a directory of its own");
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // Put in place only when it is whole.
    let unfinished = path.with_extension("unfinished");
    command::run(
        Command::new("go")
            .args(["build", "-trimpath", "-ldflags", &link_flags(), "-o"])
            .arg(&unfinished)
            .arg(".")
            .current_dir(SOURCE)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly"),
    )?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))
}

fn link_flags() -> String {
    let mut flags = "-s -w".to_owned();
    for (package, variables) in VERSION {
        for (name, value) in *variables {
            write!(flags, " -X {package}.{name}={value}").expect("a string takes any text");
        }
    }
    flags
}
