//! The development tasks of Weir, `cargo xtask TASK`: one file per task, the same commands by hand and in CI.
//!
//! This crate depends on no other crate of the workspace, so that `cargo xtask setup` builds on a machine that
//! has neither LLVM nor bpf-linker yet. It runs other programs and judges their results; it contains nothing that
//! Weir itself needs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod collector;
mod command;
mod control_plane;
mod dist;
mod edges;
mod fuzz;
mod go_program;
mod lint;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

/// Development tasks of Weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; does only what is missing
    Setup(setup::Arguments),
    /// Build Weir and show the live traffic of this machine
    Run(run::Arguments),
    /// Run the tests: unit, network namespaces, virtual machines
    Test(test::Arguments),
    /// Check format, clippy, dependency edges, house rules and licences
    Lint(lint::Arguments),
    /// Run a benchmark in release mode
    Bench(bench::Arguments),
    /// Run fuzz targets for a while
    Fuzz(fuzz::Arguments),
    /// Build the static release binary and check its size
    Dist(dist::Arguments),
}

fn main() -> ExitCode {
    perform(Cli::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    std::env::set_current_dir(command::workspace_root())?;
    match task {
        Task::Setup(arguments) => setup::main(&arguments)?,
        Task::Run(arguments) => run::main(&arguments)?,
        // The sum of the tests is their last line, without an error behind it.
        Task::Test(arguments) => return test::main(&arguments),
        Task::Lint(arguments) => lint::main(&arguments)?,
        Task::Bench(arguments) => bench::main(&arguments)?,
        Task::Fuzz(arguments) => fuzz::main(&arguments)?,
        Task::Dist(arguments) => dist::main(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
