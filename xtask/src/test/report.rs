//! What the suites said: their output is passed on line by line, their result lines are counted, and the sum is the
//! last line printed.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::spoken;
use crate::command;

/// Tests of one suite by outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Ran and succeeded.
    pub(crate) passed: u64,
    /// Ran and failed, or could not be run at all.
    pub(crate) failed: u64,
    /// Were left out.
    pub(crate) ignored: u64,
}

impl Counts {
    /// A suite of which nothing is known but that it failed.
    pub(crate) fn one_failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// Adds what one line says, if it is the result line of a test binary or our own last line.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        let sum = line
            .strip_prefix("test result:")
            .map_or(line, |rest| rest.split_once('.').map_or(rest, |(_, sum)| sum));
        let mut found = Self::default();
        let mut words = 0;
        for part in sum.split([';', ',']) {
            let mut parts = part.split_whitespace();
            let (Some(count), Some(word)) = (parts.next(), parts.next()) else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match word {
                "passed" => found.passed = count,
                "failed" => found.failed = count,
                "ignored" => found.ignored = count,
                _ => continue,
            }
            words += 1;
        }
        if words >= 2 {
            self.passed += found.passed;
            self.failed += found.failed;
            self.ignored += found.ignored;
        }
    }

    /// Makes the failure of a whole suite visible where none of its tests reported one.
    pub(crate) fn with_exit(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// All suites so far, in the order in which they ran.
#[derive(Default)]
pub(super) struct Report {
    suites: Vec<(String, Counts, Duration)>,
    skipped: Vec<String>,
}

impl Report {
    /// Records a suite that ran.
    pub(super) fn add(&mut self, suite: &str, counts: Counts, duration: Duration) {
        self.suites.push((suite.to_owned(), counts, duration));
    }

    /// Records a suite that cannot run here: a failure in strict mode, a message otherwise.
    pub(super) fn cannot_run(&mut self, suite: &str, reason: &str) {
        eprintln!("{suite}: cannot run: {reason}");
        if command::strict() {
            self.add(suite, Counts::one_failure(), Duration::ZERO);
        } else {
            self.skipped.push(format!("{suite}: {reason}"));
        }
    }

    /// Runs `cargo test`, shows its output as it comes and counts its result lines.
    pub(super) fn cargo_test(&mut self, suite: &str, tests: &mut Command) -> anyhow::Result<()> {
        eprintln!("+ {}", command::display(tests));
        if std::io::stdout().is_terminal() {
            tests.env("CARGO_TERM_COLOR", "always");
        }
        let started = Instant::now();
        let mut child = tests.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
        let stdout = child.stdout.take().expect("it was piped above");
        let mut counts = Counts::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.read(&line);
        }
        let success = child.wait()?.success();
        self.add(suite, counts.with_exit(success), started.elapsed());
        Ok(())
    }

    /// Prints the summary; its last line is the sum. The exit code says whether anything failed.
    pub(super) fn conclude(self) -> ExitCode {
        let mut sum = Counts::default();
        println!("\n{:<24} {:>7} {:>7} {:>8}   time", "suite", "passed", "failed", "ignored");
        for (suite, counts, duration) in &self.suites {
            let Counts { passed, failed, ignored } = counts;
            println!("{suite:<24} {passed:>7} {failed:>7} {ignored:>8}   {}", spoken(*duration));
            sum.passed += passed;
            sum.failed += failed;
        }
        for skipped in &self.skipped {
            println!("did not run: {skipped}");
        }
        println!("{} passed, {} failed", sum.passed, sum.failed);
        if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, passed: u64, failed: u64, ignored: u64) {
        let mut counts = Counts::default();
        counts.read(line);
        assert_eq!(counts, Counts { passed, failed, ignored }, "{line}");
    }

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s",
            12,
            0,
            1,
        );
        check("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out", 2, 3, 0);
        check("7 passed, 0 failed", 7, 0, 0);
        check("3 packets passed", 0, 0, 0);
        check("running 12 tests", 0, 0, 0);
        check("4 passed", 0, 0, 0);
    }

    #[test]
    fn a_suite_that_dies_without_a_result_counts_as_one_failure() {
        assert_eq!(Counts::default().with_exit(false).failed, 1);
        assert_eq!(Counts { failed: 3, ..Counts::default() }.with_exit(false).failed, 3);
        assert_eq!(Counts { passed: 3, ..Counts::default() }.with_exit(true).failed, 0);
    }
}
