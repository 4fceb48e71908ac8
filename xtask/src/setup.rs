//! `cargo xtask setup`: everything that building and testing need and that is not there yet.
//!
//! A step is a thing that can be looked at ("is it there?") and done. Looking changes nothing, so a second run does
//! nothing, and `--check` is the same code without the doing. All steps are looked at before the first is done: what
//! cannot be done here is reported, with the remedy, before anything has changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::{
    collector::COLLECTOR,
    command,
    control_plane::CONTROL_PLANE,
    dist,
    go_program::{self, GoProgram},
};

mod apt;

/// Its LLVM is the distribution's and must not be older than that of the pinned rustc.
const LLVM: &str = "22";
const BPF_LINKER: &str = "0.13.0";
const VIRTME_NG: &str = "1.42";
const CARGO_FUZZ: &str = "0.13.2";

/// What the machine is wanted for. Each task asks for its own needs only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Need {
    /// Compile Weir with its kernel programs
    Build,
    /// Check kernel code without linking it
    RustSource,
    /// Link the static release binary
    Dist,
    /// Run the tests in network namespaces, with the real tools as witnesses
    Test,
    /// Boot other kernels
    Vm,
    /// Run fuzz targets
    Fuzz,
}

/// The needs of `cargo xtask setup` without `--for`, which are those of the tests, too.
const USUAL: &[Need] = &[Need::Build, Need::Test, Need::Vm];

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup                 all that building and testing need
  cargo xtask setup --check         only says what is missing; exit code 1 if something is
  cargo xtask setup --for build     enough for `cargo build`
  cargo xtask setup --for dist      adds the static target")]
pub(crate) struct Arguments {
    /// Only say what is missing
    #[arg(long)]
    check: bool,
    /// What the machine is wanted for; may be repeated [default: build, test, vm]
    #[arg(long = "for", value_name = "NEED")]
    needs: Vec<Need>,
}

/// Prints each step with its state, then does what is missing.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let needs = if arguments.needs.is_empty() { USUAL } else { &arguments.needs };
    let steps = steps(needs)?;
    let missing = steps.iter().filter(|step| !step.is_there()).count();
    for step in &steps {
        let state = if step.is_there() { "there  " } else { "missing" };
        println!("{state}  {}", step.describe());
    }
    if missing == 0 {
        println!("nothing to do");
        return Ok(());
    }
    if arguments.check {
        for remedy in steps.iter().filter_map(Step::obstacle) {
            println!("{remedy}");
        }
        bail!("{missing} steps are missing: `cargo xtask setup` does them");
    }
    complete(&steps)
}

/// Does what is missing for these needs; says nothing where nothing is.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    complete(&steps(needs)?)
}

/// The virtual machine runner installed by `Need::Vm`.
pub(crate) fn virtme_ng() -> anyhow::Result<PathBuf> {
    Ok(command::cache_directory()?.join("virtme-ng/bin/vng"))
}

/// Whether kernel programs can be compiled here.
pub(crate) fn has_bpf_linker() -> bool {
    Step::BpfLinker.is_there()
}

/// One thing that can be missing.
enum Step {
    /// Packages of the distribution that are not installed. Empty is "there".
    Packages(Vec<&'static str>),
    RustSource(PathBuf),
    RustTarget(PathBuf, &'static str),
    BpfLinker,
    VirtmeNg(PathBuf),
    CargoFuzz,
    GoProgram(&'static GoProgram, PathBuf),
}

fn steps(needs: &[Need]) -> anyhow::Result<Vec<Step>> {
    let has = |need| needs.contains(&need);
    let mut packages: Vec<&str> = Vec::new();
    let mut steps = Vec::new();
    let sysroot = PathBuf::from(command::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());

    if has(Need::Build) {
        // LLVM is also what bpf-linker loads when it runs. Where bpf-linker works, it is there in some way.
        if !Step::BpfLinker.is_there() {
            packages.extend(apt::BUILD);
        }
        steps.push(Step::BpfLinker);
    }
    if has(Need::Build) || has(Need::RustSource) {
        steps.push(Step::RustSource(sysroot.join("lib/rustlib/src/rust/library/core")));
    }
    if has(Need::Dist) {
        packages.extend(apt::DIST);
        steps.push(Step::RustTarget(sysroot.join("lib/rustlib").join(dist::TARGET), dist::TARGET));
    }
    if has(Need::Test) {
        packages.extend(apt::TEST);
        // Go is not installed: distributions have it too old, and nothing but these tests needs it.
        if go_program::has_go() {
            for program in [&COLLECTOR, &CONTROL_PLANE] {
                steps.push(Step::GoProgram(program, program.path()?));
            }
        } else {
            eprintln!(
                "no Go: tests with a Kubernetes control plane or an OpenTelemetry Collector cannot run \
                 (https://go.dev/dl, 1.26 or newer)"
            );
        }
    }
    if has(Need::Vm) {
        packages.extend(apt::VM);
        steps.push(Step::VirtmeNg(virtme_ng()?));
    }
    if has(Need::Fuzz) {
        steps.push(Step::CargoFuzz);
    }
    packages.sort_unstable();
    packages.dedup();
    // First, because the other steps compile against them.
    steps.insert(0, Step::Packages(apt::missing(&packages)));
    Ok(steps)
}

/// Does the missing steps, unless one of them is impossible: then nothing is done.
fn complete(steps: &[Step]) -> anyhow::Result<()> {
    let missing: Vec<&Step> = steps.iter().filter(|step| !step.is_there()).collect();
    let obstacles: Vec<String> = missing.iter().filter_map(|step| step.obstacle()).collect();
    if !obstacles.is_empty() {
        bail!("setup changed nothing, because part of it cannot be done here:\n{}", obstacles.join("\n"));
    }
    for (index, step) in missing.iter().enumerate() {
        eprintln!("setup {} of {}: {}", index + 1, missing.len(), step.describe());
        step.perform()?;
    }
    Ok(())
}

impl Step {
    fn describe(&self) -> String {
        match self {
            Self::Packages(missing) if missing.is_empty() => "packages of the distribution".to_owned(),
            Self::Packages(missing) => format!("packages of the distribution: {}", missing.join(" ")),
            Self::RustSource(_) => "source of Rust's core library (rust-src)".to_owned(),
            Self::RustTarget(_, target) => format!("Rust target {target}"),
            Self::BpfLinker => format!("bpf-linker {BPF_LINKER} (compiles for about a minute)"),
            Self::VirtmeNg(_) => format!("virtme-ng {VIRTME_NG} in a private Python environment"),
            Self::CargoFuzz => format!("cargo-fuzz {CARGO_FUZZ} (compiles for about a minute)"),
            Self::GoProgram(program, _) => program.description.to_owned(),
        }
    }

    fn is_there(&self) -> bool {
        match self {
            Self::Packages(missing) => missing.is_empty(),
            Self::RustSource(path) | Self::RustTarget(path, _) => path.is_dir(),
            // Any version will do: a user may have a newer one from elsewhere.
            Self::BpfLinker => command::succeeds(Command::new("bpf-linker").arg("--version")),
            Self::VirtmeNg(path) => command::output(Command::new(path).arg("--version"))
                .is_ok_and(|version| version.contains(VIRTME_NG)),
            Self::CargoFuzz => command::succeeds(command::cargo().args(["fuzz", "--version"])),
            Self::GoProgram(_, path) => path.is_file(),
        }
    }

    /// Why this step cannot be done on this machine, and what would help.
    fn obstacle(&self) -> Option<String> {
        match self {
            Self::Packages(missing) => apt::obstacle(missing),
            Self::RustSource(_) | Self::RustTarget(..) if command::find("rustup").is_none() => Some(format!(
                "no rustup: install it from https://rustup.rs, or the {} from where your Rust came from",
                self.describe()
            )),
            Self::VirtmeNg(_) if command::find("python3").is_none() && !apt::is_here() => Some(
                "no python3, which virtme-ng needs: install Python 3.8 or newer with its venv module"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::Packages(missing) => apt::install(missing),
            Self::RustSource(_) => {
                command::run(Command::new("rustup").args(["component", "add", "rust-src"]))
            }
            Self::RustTarget(_, target) => {
                command::run(Command::new("rustup").args(["target", "add", target]))
            }
            Self::BpfLinker => command::run(
                command::cargo()
                    .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
                    .args(["--no-default-features", "--features"])
                    .arg(format!("llvm-{LLVM}"))
                    .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}")),
            ),
            Self::VirtmeNg(path) => install_virtme_ng(path),
            Self::CargoFuzz => command::run(command::cargo().args([
                "install",
                "cargo-fuzz",
                "--version",
                CARGO_FUZZ,
                "--locked",
            ])),
            Self::GoProgram(program, path) => program.build(path),
        }
    }
}

/// A private environment, because distributions forbid pip to touch theirs.
fn install_virtme_ng(program: &Path) -> anyhow::Result<()> {
    let environment = program.ancestors().nth(2).expect("the program lies in ENVIRONMENT/bin");
    // The distribution's Python has the venv module that was just installed; another one first in PATH may not.
    let python = Path::new("/usr/bin/python3");
    let python = if python.is_file() { python } else { Path::new("python3") };
    command::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(environment))?;
    command::run(
        Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("virtme-ng=={VIRTME_NG}")),
    )
}
