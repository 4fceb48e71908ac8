//! An OpenTelemetry Collector for the tests and benchmarks: 25 MB, built from `tests/collector` in some minutes.

use crate::go_program::GoProgram;

/// The collector.
pub(crate) const COLLECTOR: GoProgram = GoProgram {
    name: "collector",
    description: "OpenTelemetry Collector for the tests (compiles for about three minutes)",
    source: "tests/collector",
    variable: "WEIR_COLLECTOR",
    link_flags: || "-s -w".to_owned(),
};
