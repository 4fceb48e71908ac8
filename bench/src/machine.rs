//! Where it was measured, and what else the machine did meanwhile.

use std::{fmt::Write as _, fs};

use nix::{
    sys::resource::{UsageWho, getrusage},
    sys::time::TimeValLike as _,
};
use serde_json::{Value, json};

/// Facts for the head of a report.
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    before: Times,
    steal_percent: f64,
    busy_percent: f64,
}

/// Ticks of all CPUs together since the start of the machine.
#[derive(Clone, Copy, Default)]
struct Times {
    all: f64,
    idle: f64,
    steal: f64,
}

impl Times {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let tick = |index: usize| ticks.get(index).copied().unwrap_or_default();
        // The last two are part of the first two.
        Self { all: ticks.iter().take(8).sum(), idle: tick(3) + tick(4), steal: tick(7) }
    }
}

impl Machine {
    /// Looks around before measuring.
    pub(crate) fn look() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
        let cpus = std::thread::available_parallelism().map_or(1, Into::into);
        Self { kernel, cpu, cpus, before: Times::now(), steal_percent: 0.0, busy_percent: 0.0 }
    }

    /// Looks again afterwards.
    pub(crate) fn look_again(&mut self) {
        let (before, after) = (self.before, Times::now());
        let all = (after.all - before.all).max(1.0);
        self.steal_percent = 100.0 * (after.steal - before.steal) / all;
        self.busy_percent = 100.0 - 100.0 * (after.idle - before.idle) / all;
    }

    pub(crate) fn table(&self) -> String {
        let Self { kernel, cpu, cpus, steal_percent, busy_percent, .. } = self;
        let mut text = String::new();
        writeln!(
            text,
            "kernel {kernel}, {cpus} x {cpu}\nCPUs busy {busy_percent:.0} % of the time (measuring keeps one busy), stolen {steal_percent:.1} %"
        )
        .expect("a string takes everything");
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel, "cpu": self.cpu, "cpus": self.cpus,
            "busy_percent": self.busy_percent, "steal_percent": self.steal_percent,
        })
    }
}

/// Processor time of this process so far, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "some minutes")]
pub(crate) fn processor_us() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}
