//! Says why a test cannot run here, and makes that a failure where everything must run.

use std::{env, process::Command};

use weir_datapath::netns::Netns;

/// Whether this process may make network namespaces. If not, says so as [`cannot_run`] does; the test then returns:
///
/// ```no_run
/// if !weir_integration::require_root() {
///     return;
/// }
/// ```
#[must_use]
pub fn require_root() -> bool {
    match Netns::unnamed() {
        Ok(_) => true,
        Err(error) => {
            cannot_run(&error.to_string());
            false
        }
    }
}

/// Whether a program is installed. If not, says so as [`cannot_run`] does.
#[must_use]
pub fn require_tool(program: &str) -> bool {
    let found = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        cannot_run(&format!("{program} is not installed"));
    }
    found
}

/// Prints why the calling test does not run. Panics instead if `WEIR_TEST_STRICT=1`.
pub fn cannot_run(reason: &str) {
    assert!(env::var("WEIR_TEST_STRICT").as_deref() != Ok("1"), "this test must run here, but {reason}");
    let thread = std::thread::current();
    println!("skipped {}: {reason}", thread.name().unwrap_or("test"));
}

/// Runs a command to its end and returns what it printed. Panics with its messages if it fails.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed with {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
