//! Starting other programs: where they run, as whom, and what is said about them.
//!
//! Every program that changes something or takes long is announced with the line a person would type.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Variable that turns "cannot run here" from a message into a failure. CI sets it.
pub(crate) const STRICT: &str = "WEIR_TEST_STRICT";

/// The directory that holds the workspace manifest.
pub(crate) fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a direct child of the workspace root")
        .to_path_buf()
}

/// Where cargo puts what it builds; honours `CARGO_TARGET_DIR` and the configuration.
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// Where downloads and private tools live: `$XDG_CACHE_HOME/weir` or `~/.cache/weir`.
pub(crate) fn cache_directory() -> anyhow::Result<PathBuf> {
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(cache).join("weir"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set: cannot find the cache directory")?;
    Ok(PathBuf::from(home).join(".cache/weir"))
}

/// Whether a test that cannot run must fail.
pub(crate) fn strict() -> bool {
    std::env::var_os(STRICT).is_some_and(|value| value == "1")
}

/// Whether this process has user id 0.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program run as root: directly if we are root, else through `sudo`, which may ask for a password.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg(program);
    command
}

/// Whether tests can become root without a question.
pub(crate) fn can_be_root() -> bool {
    is_root() || succeeds(Command::new("sudo").args(["-n", "true"]))
}

/// Path of a program, looked up in `PATH` and in the system directories that users often lack there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Announces and runs a program; its failure is an error that names it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("+ {}", display(command));
    let status = command.status().with_context(|| format!("cannot start {}", display(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", display(command));
    }
    Ok(())
}

/// Runs a program in silence and returns what it wrote to its standard output; its failure is an error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", display(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", display(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program in silence and only asks whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The line a person would type, with the variables that are set for this program alone.
pub(crate) fn display(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| name != "PATH") {
            line.push_str(&name.to_string_lossy());
            line.push('=');
            line.push_str(&quoted(value));
            line.push(' ');
        }
    }
    let program = Path::new(command.get_program());
    line.push_str(&program.file_name().unwrap_or(program.as_os_str()).to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

/// A word as the shell reads it.
pub(crate) fn quoted(value: &OsStr) -> String {
    let text = value.to_string_lossy();
    if text.is_empty()
        || text.contains(|letter: char| letter.is_whitespace() || "'\"$;&|<>*()".contains(letter))
    {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    text.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displayed_command_can_be_typed() {
        let mut command = Command::new("/usr/bin/env");
        command.env("A", "b c").args(["plain", "", "it's", "$HOME"]);
        assert_eq!(display(&command), r"A='b c' env plain '' 'it'\''s' '$HOME'");
    }
}
