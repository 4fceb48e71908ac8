//! `cargo xtask bench`: builds the benchmarks as released and runs one of them as root.

use crate::{collector::COLLECTOR, command, go_program, setup};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench flow      cost of counting a packet, beside two reference designs
  cargo xtask bench store     the agent's history, beside plain SQLite rows
  cargo xtask bench proxy     diverted connections, beside direct ones, nftables DNAT, HAProxy and socat
  cargo xtask bench otlp      flows to a local OpenTelemetry Collector, in several ways
  cargo xtask bench tap       traffic whose server is tapped, beside tcpdump
  cargo xtask bench masks     looking for secrets in text
  cargo xtask bench redirect  cost of redirecting a packet
  cargo xtask bench           lists the benchmarks")]
pub(crate) struct Arguments {
    /// Name of the benchmark and its own arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME")]
    bench: Vec<String>,
}

/// Sets up, builds in release mode and runs; the benchmark's own table is the result.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure(&[setup::Need::Build, setup::Need::Test])?;
    let mut build = command::cargo();
    build.args(["build", "--release", "--package", "weir-bench"]);
    // One of them runs the command.
    let needs_weir = arguments.bench.first().is_some_and(|name| name == "tap");
    if needs_weir {
        build.args(["--package", "weir"]);
    }
    command::run(&mut build)?;
    let binary = command::target_directory()?.join("release/weir-bench");
    let mut bench = command::as_root(binary);
    if needs_weir {
        bench.env("WEIR_BIN", command::target_directory()?.join("release/weir"));
    }
    if go_program::has_go() {
        bench.env(COLLECTOR.variable, COLLECTOR.path()?);
    }
    command::run(bench.args(&arguments.bench))
}
