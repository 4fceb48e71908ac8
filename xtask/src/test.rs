//! `cargo xtask test`: every tier of tests, from pure functions to other kernels, with one summary at the end.
//!
//! The tiers run one after the other: blast tests and emulated machines want the processors for themselves. The last
//! line is always `N passed, N failed`, summed over all tiers; a suite that does not build or dies counts as one
//! failure.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{collector::COLLECTOR, command, control_plane::CONTROL_PLANE, go_program, setup, vm};

pub(crate) mod report;

use report::{Counts, Report};

/// Kernels of the smoke test: the floor of what is supported, and the one most widely installed.
const SMOKE_KERNELS: &[&str] = &["5.10", "6.1"];

/// The crate of tests that need a kernel, and its test binary that runs alone.
const INTEGRATION: &str = "weir-integration";
const BLAST: &str = "blast";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                       everything, with a short run on kernels 5.10 and 6.1
  cargo xtask test unit                  needs neither root nor kernel
  cargo xtask test unit -- community_id  only tests with this in their name
  cargo xtask test netns                 real traffic in namespaces of its own; becomes root through sudo
  cargo xtask test vm                    the short run on kernels 5.10 and 6.1, and nothing else
  cargo xtask test vm 6.1 6.12-rt        the longer run on these kernels; `newest` is one, too

WEIR_TEST_STRICT=1 turns what cannot run here into a failure.")]
pub(crate) struct Arguments {
    /// Which tier
    #[arg(value_enum, default_value = "all")]
    tier: Tier,
    /// Kernel series for the longer run of `vm`
    #[arg(value_name = "SERIES")]
    series: Vec<String>,
    /// Part of a test's name, and other arguments of the test binaries
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    /// Unit, property and documentation tests
    Unit,
    /// Tests with the kernel of this machine, as root
    Netns,
    /// Tests with other kernels, in virtual machines: in short, or longer on the series named
    Vm,
    /// All of these; the virtual machines do their short run
    All,
}

/// Sets up, runs the tiers asked for, prints the summary; fails if anything failed.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runs = |tier| arguments.tier == Tier::All || arguments.tier == tier;
    if !arguments.series.is_empty() && arguments.tier != Tier::Vm {
        bail!("kernel series belong to `cargo xtask test vm`; a filter goes behind `--`");
    }
    let mut needs = vec![setup::Need::Build];
    if runs(Tier::Netns) {
        needs.push(setup::Need::Test);
    }
    if runs(Tier::Vm) {
        needs.push(setup::Need::Vm);
    }
    setup::ensure(&needs)?;

    let mut report = Report::default();
    if runs(Tier::Unit) {
        unit(&mut report, &arguments.filter)?;
    }
    if runs(Tier::Netns) {
        netns(&mut report, &arguments.filter)?;
    }
    if runs(Tier::Vm) {
        let length = if arguments.series.is_empty() { vm::Length::Smoke } else { vm::Length::Full };
        virtual_machines(&mut report, &arguments.series, length, &arguments.filter)?;
    }
    Ok(report.conclude())
}

/// The default members of the workspace: nothing there needs root or a kernel feature.
fn unit(report: &mut Report, filter: &[OsString]) -> anyhow::Result<()> {
    let mut tests = command::cargo();
    tests.args(["test", "--no-fail-fast", "--"]).args(filter);
    report.cargo_test("unit and doc tests", &mut tests)
}

/// The integration crate, as root. Tests make their own namespaces, so they run side by side; those of the blast
/// binary load all processors and run one at a time, after the others.
fn netns(report: &mut Report, filter: &[OsString]) -> anyhow::Result<()> {
    if !command::can_be_root() {
        report.cannot_run("integration", "not root, and sudo asks for a password: run `sudo -v` first");
        return Ok(());
    }
    let binaries = integration_tests()?;
    command::run(command::cargo().args(["build", "--package", "weir"]))?;
    let weir = command::target_directory()?.join("debug/weir");

    let mut tests = integration();
    tests.arg("--lib").env("WEIR_BIN", &weir);
    if go_program::has_go() {
        for program in [&COLLECTOR, &CONTROL_PLANE] {
            tests.env(program.variable, program.path()?);
        }
    }
    for binary in binaries.iter().filter(|name| *name != BLAST) {
        tests.args(["--test", binary]);
    }
    report.cargo_test("integration", tests.arg("--").args(filter))?;

    if binaries.iter().any(|name| name == BLAST) {
        let mut blast = integration();
        blast.args(["--test", BLAST, "--", "--test-threads=1"]).args(filter).env("WEIR_BIN", &weir);
        report.cargo_test("blast", &mut blast)?;
    }
    Ok(())
}

/// `cargo test` for the integration crate; when not root, only the test binaries become it, never cargo.
fn integration() -> Command {
    let mut tests = command::cargo();
    tests.args(["test", "--package", INTEGRATION, "--no-fail-fast"]);
    if !command::is_root() {
        tests.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -nE");
    }
    tests
}

/// Names of the test binaries of the integration crate.
fn integration_tests() -> anyhow::Result<Vec<String>> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name == INTEGRATION)
        .with_context(|| format!("the workspace has no package {INTEGRATION}"))?;
    Ok(package.targets.iter().filter(|target| target.is_test()).map(|target| target.name.clone()).collect())
}

/// One suite per kernel.
fn virtual_machines(
    report: &mut Report,
    series: &[String],
    length: vm::Length,
    filter: &[OsString],
) -> anyhow::Result<()> {
    let smoke_kernels: Vec<String> = SMOKE_KERNELS.iter().map(ToString::to_string).collect();
    let series = if series.is_empty() { &smoke_kernels } else { series };
    let program = vm::guest_program(filter)?;
    for series in series {
        let suite = format!("kernel {series}");
        let started = Instant::now();
        match vm::run(series, &program, length) {
            Ok(counts) => report.add(&suite, counts, started.elapsed()),
            Err(error) => {
                eprintln!("{suite}: {error:#}");
                report.add(&suite, Counts::one_failure(), started.elapsed());
            }
        }
    }
    Ok(())
}

/// Minutes and seconds, as people say them.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}
