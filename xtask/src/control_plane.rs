//! The control plane of Kubernetes for the tests: one binary that is API server, etcd, controller manager, scheduler
//! or kubectl by the name that it is called with.
//!
//! It is built from `tests/control-plane` once per machine, and again only if its sources, the flags or Go change. The
//! first time takes ten minutes and 3 GB of Go's build cache; the binary, 130 MB, is all that is needed afterwards.

use std::fmt::Write as _;

use crate::go_program::GoProgram;

/// The control plane.
pub(crate) const CONTROL_PLANE: GoProgram = GoProgram {
    name: "control-plane",
    description: "Kubernetes control plane for the tests (compiles for about ten minutes)",
    source: "tests/control-plane",
    variable: "WEIR_CONTROL_PLANE",
    link_flags,
};

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

fn link_flags() -> String {
    let mut flags = "-s -w".to_owned();
    for (package, variables) in VERSION {
        for (name, value) in *variables {
            write!(flags, " -X {package}.{name}={value}").expect("a string takes any text");
        }
    }
    flags
}
