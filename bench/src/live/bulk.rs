//! One TCP stream as fast as it goes, by iperf3.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    mem,
    process::{Child, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use weir_integration::Veth;

/// Runs iperf3 for some seconds. Returns megabytes received, seconds, and the CPU time of both processes in
/// nanoseconds.
pub(super) fn run(veth: &Veth, seconds: u64) -> anyhow::Result<(f64, f64, f64)> {
    let address = veth.right.ipv4.to_string();
    let mut server = veth
        .right
        .namespace
        .command("iperf3")
        .args(["--server", "--one-off", "--forceflush", "--bind", &address])
        .stdout(Stdio::piped())
        .spawn()
        .context("iperf3 is not installed")?;
    let mut lines = BufReader::new(server.stdout.take().context("it is piped")?).lines();
    for line in lines.by_ref() {
        if line?.contains("listening") {
            break;
        }
    }
    let mut client = veth
        .left
        .namespace
        .command("iperf3")
        .args(["--client", &address, "--time", &seconds.to_string(), "--json"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = String::new();
    client.stdout.take().context("it is piped")?.read_to_string(&mut output)?;
    // The server writes a few lines more and must not find the pipe closed.
    lines.for_each(drop);
    let cpu = wait(&client)? + wait(&server)?;
    let report: Value = serde_json::from_str(&output).context("iperf3 reports no JSON")?;
    let sum = &report["end"]["sum_received"];
    let bytes = sum["bytes"].as_f64().with_context(|| format!("iperf3 failed: {}", report["error"]))?;
    let elapsed = sum["seconds"].as_f64().context("iperf3 reports no time")?;
    Ok((bytes / 1e6, elapsed, cpu))
}

/// Waits for the end of a process and returns its CPU time in nanoseconds.
fn wait(child: &Child) -> anyhow::Result<f64> {
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to variables that outlive the call; nobody else waits for this child.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid && status == 0, "iperf3 failed");
    #[expect(clippy::cast_precision_loss, reason = "some seconds in microseconds")]
    let nanoseconds = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    Ok(nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime))
}
