//! What the agent itself takes of the machine, as the kernel tells in `/proc/self`.

use std::{fs, path::Path};

use weir_api::status::ProcessStatus;

/// Ticks per second in which `/proc` counts processor time, on every architecture that Weir runs on (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel has counted of one of our programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramRun {
    /// Its number.
    pub(crate) id: u32,
    /// Time that it ran, in nanoseconds.
    pub(crate) nanoseconds: u64,
    /// How often it ran.
    pub(crate) runs: u64,
}

/// Processor time and memory; zeros where `/proc` is not there.
pub(crate) fn usage() -> ProcessStatus {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
    ProcessStatus { cpu_seconds: cpu_seconds(&read("stat")), resident_bytes: resident_bytes(&read("status")) }
}

/// User and system time of `/proc/PID/stat`. The name in parentheses may contain anything.
fn cpu_seconds(stat: &str) -> f64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib << 10)
}

/// Open descriptors.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What the kernel has counted of our programs, which it does only where `kernel.bpf_stats_enabled` is 1.
pub(crate) fn program_runs() -> Vec<ProgramRun> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fdinfo") else { return Vec::new() };
    let infos = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let mut runs: Vec<ProgramRun> = infos.filter_map(|info| program_run(&info)).collect();
    runs.sort_by_key(|run| run.id);
    runs.dedup_by_key(|run| run.id);
    runs
}

/// Reads what the kernel says of the descriptor of a program (`bpf_prog_show_fdinfo`).
fn program_run(info: &str) -> Option<ProgramRun> {
    let number = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse::<u64>().ok()
    };
    let runs = number("run_cnt").filter(|runs| *runs > 0)?;
    Some(ProgramRun {
        id: u32::try_from(number("prog_id")?).ok()?,
        nanoseconds: number("run_time_ns")?,
        runs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_numbers() {
        let stat = "12 (we) ir (x) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1000 50";
        assert!((cpu_seconds(stat) - 3.0).abs() < 1e-9);
        assert!((cpu_seconds("")).abs() < 1e-9);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(resident_bytes("Name:\tweir\nVmRSS:\t    2048 kB\nVmData:\t 1 kB\n"), 2 << 20);
    }

    #[test]
    fn programs_that_ran_are_told_and_other_descriptors_are_not() {
        let info = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_jited:\t1\nprog_tag:\tabc\nmemlock:\t4096\nprog_id:\t77\nrun_time_ns:\t5000\nrun_cnt:\t10\n";
        let expect = ProgramRun { id: 77, nanoseconds: 5000, runs: 10 };
        assert_eq!(program_run(info), Some(expect));
        assert_eq!(program_run(&info.replace("run_cnt:\t10", "run_cnt:\t0")), None);
        assert_eq!(program_run("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn this_process_takes_something() {
        assert!(usage().resident_bytes > 0);
        assert!(open_descriptors() > 0);
    }
}
