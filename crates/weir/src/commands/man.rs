//! `weir man`: the manual pages, made from the same definitions as `--help`.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::cli::{Cli, ManArgs};

pub(super) fn run(args: &ManArgs) -> Result<ExitCode> {
    let mut root = Cli::command();
    // Gives every command its whole name, `weir replay`.
    root.build();
    let Some(directory) = &args.out else {
        io::stdout().write_all(&page(root)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    write(directory, &root)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of a command and those of its own commands.
fn write(directory: &Path, command: &Command) -> Result<()> {
    for below in command.get_subcommands() {
        write(directory, below)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, page(command.clone())?).with_context(|| format!("cannot write {}", path.display()))
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}
