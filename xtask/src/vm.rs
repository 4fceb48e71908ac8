//! Boots other kernels in virtual machines and runs a program there.
//!
//! The guest is QEMU without hardware virtualisation, started by virtme-ng: its kernel is Debian's, its files are
//! those of this machine, read-only over 9p. One directory is shared for writing; the guest leaves the program's
//! output and exit code there, because console output mixes with the kernel's own messages. Guests run one at a time.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::test::report::Counts;
use crate::{command, setup};

mod kernel;

/// How much is run in the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Loads, attaches, counts once: half a minute on an idle machine.
    Smoke,
    /// All that is worth running under emulation.
    Full,
}

/// The binary target of the integration crate that runs in guests. Its first argument is `smoke` or `full`.
const GUEST_BINARY: &str = "weir-vm-smoke";

/// What runs in the guest: a program and the arguments behind its length.
pub(crate) struct GuestProgram {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// Builds the program for the guest. Guest and host share their libraries, so the ordinary build will do.
pub(crate) fn guest_program(filter: &[OsString]) -> anyhow::Result<GuestProgram> {
    command::run(command::cargo().args(["build", "--package", "weir-integration", "--bin", GUEST_BINARY]))?;
    Ok(GuestProgram {
        program: command::target_directory()?.join("debug").join(GUEST_BINARY),
        arguments: filter.to_vec(),
    })
}

/// Boots the newest kernel of a series and runs the program in it. An error means that the guest told no result.
pub(crate) fn run(series: &str, guest: &GuestProgram, length: Length) -> anyhow::Result<Counts> {
    let kernel = kernel::fetch(series)?;
    let shared = command::target_directory()?.join("vm").join(series);
    prepare(&shared, guest, length)?;

    eprintln!("kernel {series}: booting {} without KVM", kernel.version);
    let started = Instant::now();
    let seconds = match length {
        Length::Smoke => 600,
        Length::Full => 2400,
    };
    boot(&kernel, &shared, seconds)?;

    let output = fs::read_to_string(shared.join("output")).unwrap_or_default();
    print!("{output}");
    let Ok(code) = fs::read_to_string(shared.join("exit-code")) else {
        bail!(
            "the guest ended without a result (it had {seconds} s); its console said last:\n{}",
            last_lines(&shared, 25)
        );
    };
    let success = code.trim() == "0";
    eprintln!(
        "kernel {series}: {}, exit code {}, {} s",
        kernel.version,
        code.trim(),
        started.elapsed().as_secs()
    );
    if output.lines().next() != Some(kernel.version.as_str()) {
        bail!("the guest did not run {}: its output starts with {:?}", kernel.version, output.lines().next());
    }

    let mut counts = Counts::default();
    output.lines().for_each(|line| counts.read(line));
    if success && counts == Counts::default() {
        counts.passed = 1;
    }
    Ok(counts.with_exit(success))
}

/// Leaves the guest's script in the shared directory, and nothing else there.
fn prepare(shared: &Path, guest: &GuestProgram, length: Length) -> anyhow::Result<()> {
    if shared.exists() {
        fs::remove_dir_all(shared).with_context(|| format!("cannot clear {}", shared.display()))?;
    }
    fs::create_dir_all(shared).with_context(|| format!("cannot create {}", shared.display()))?;
    let length = match length {
        Length::Smoke => "smoke",
        Length::Full => "full",
    };
    let words = [guest.program.as_os_str(), OsStr::new(length)]
        .into_iter()
        .chain(guest.arguments.iter().map(OsString::as_os_str));
    let line = words.map(command::quoted).collect::<Vec<_>>().join(" ");
    let strict = if command::strict() { "1" } else { "0" };
    let script = format!(
        "uname -r\n\
         export {}={strict} RUST_BACKTRACE=0 PATH=\"$PATH:/usr/sbin:/sbin\"\n\
         mount -t tmpfs none /run && mkdir -p /run/netns || exit 1\n\
         mountpoint -q /sys/fs/bpf || mount -t bpf none /sys/fs/bpf || exit 1\n\
         modprobe -a veth dummy sch_ingress cls_bpf || exit 1\n\
         ip link set lo up\n\
         {line}\n",
        command::STRICT
    );
    fs::write(shared.join("script"), script).context("cannot write the guest's script")
}

/// Runs the guest until it powers off or its time is over. The console goes to a file.
fn boot(kernel: &kernel::Kernel, shared: &Path, seconds: u32) -> anyhow::Result<()> {
    let virtme_ng = setup::virtme_ng()?;
    let tools = virtme_ng.parent().expect("the program lies in a directory").to_path_buf();
    let path = std::env::join_paths(
        std::iter::once(tools).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let directory = shared.display();
    let inside =
        format!("bash {directory}/script >{directory}/output 2>&1; echo $? >{directory}/exit-code; sync");
    // Verbose, because without it the guest's console is lost; microvm and KVM are not to be had under emulation.
    let virtme = format!(
        "vng --verbose --run {} --user root --disable-kvm --disable-microvm --force-9p --cpus 2 --memory 2G \
         --rwdir={directory} -- {}",
        kernel.image.display(),
        command::quoted(OsStr::new(&inside)),
    );
    let console = fs::File::create(shared.join("console")).context("cannot create the console log")?;
    // virtme-ng wants a terminal, `script` makes one. `timeout` ends a guest that hangs.
    let mut script = Command::new("timeout");
    script
        .args([
            "--foreground",
            "--kill-after=10",
            &seconds.to_string(),
            "script",
            "--quiet",
            "--return",
            "--command",
        ])
        .args([&virtme, "/dev/null"])
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    // Its exit code says nothing that the files of the guest do not say better.
    script.status().context("cannot start the virtual machine")?;
    Ok(())
}

fn last_lines(shared: &Path, count: usize) -> String {
    let console = fs::read(shared.join("console")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
