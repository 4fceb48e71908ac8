//! `weir tap` as a user runs it, and programs that wait to be tapped.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    Namespace,
    agent::{binary, copy_binary},
    cgroup::ControlGroup,
    peers::Peer,
    permission::succeed,
    require_root, require_tool,
};

/// A word that must be in no output.
pub const CANARY: &str = "canary-in-a-mine";

const PATIENCE: Duration = Duration::from_mins(1);

/// A `weir tap` that runs.
#[derive(Debug)]
pub struct TapCommand {
    child: Child,
    stderr: BufReader<ChildStderr>,
    directory: TempDir,
}

/// What a tap said.
#[derive(Debug)]
pub struct Tapped {
    /// How it ended.
    pub status: ExitStatus,
    /// On standard output.
    pub output: String,
    /// On standard error, from the moment when it was ready.
    pub messages: String,
    /// The note that it made.
    pub audit: String,
}

impl TapCommand {
    /// Starts `weir tap` with these arguments, and waits until it sees everything.
    pub fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let output = File::create(directory.path().join("output")).expect("there is room");
        Self::start_with(arguments, directory, Stdio::from(output))
    }

    /// The same by way of another program, which gives it another user perhaps.
    pub fn start_as<S: AsRef<OsStr>>(mut by: Command, arguments: &[S]) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let output = File::create(directory.path().join("output")).expect("there is room");
        by.arg(copy_binary(directory.path()));
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("it is ours");
        Self::start_by(by, arguments, directory, Stdio::from(output))
    }

    /// The same, with a standard output that nobody reads.
    pub fn start_unread<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::start_with(arguments, tempfile::tempdir().expect("there is room"), Stdio::piped())
    }

    fn start_with<S: AsRef<OsStr>>(arguments: &[S], directory: TempDir, output: Stdio) -> Self {
        Self::start_by(Command::new(binary()), arguments, directory, output)
    }

    fn start_by<S: AsRef<OsStr>>(
        mut command: Command,
        arguments: &[S],
        directory: TempDir,
        output: Stdio,
    ) -> Self {
        command.arg("tap").args(arguments).arg("--audit").arg(directory.path().join("audit"));
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
        let mut child = command.spawn().expect("weir is built");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        while !said.contains("sockets were open") {
            let count = stderr.read_line(&mut said).expect("messages are UTF-8");
            assert!(count > 0, "it ended: {said}");
        }
        Self { child, stderr, directory }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until its standard output is as it is wanted.
    pub fn wait(&self, is_there: impl Fn(&str) -> bool) {
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(self.file("output")).expect("it writes there");
            if is_there(&said) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{said}");
            std::thread::yield_now();
        }
    }

    /// Closes the end of its standard output that nobody read.
    pub fn close_output(&mut self) {
        drop(self.child.stdout.take());
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on");
            std::thread::yield_now();
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn end(mut self) -> Tapped {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let mut messages = String::new();
        self.stderr.read_to_string(&mut messages).expect("messages are UTF-8");
        let status = self.child.wait().expect("it ends");
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        Tapped { status, output: read("output"), messages, audit: read("audit") }
    }
}

impl Drop for TapCommand {
    fn drop(&mut self) {
        // Where it has ended, there is nothing to do.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Tapped {
    /// Whether it ended well, with a ledger that adds up and without any of these words in what it said.
    pub fn check(&self, secrets: &[&str]) {
        assert!(self.status.success(), "{self:?}");
        assert!(self.messages.contains("captured "), "{self:?}");
        for secret in secrets {
            assert!(!self.output.contains(secret), "{}", self.output);
            assert!(!self.messages.contains(secret), "{}", self.messages);
        }
    }
}

/// A program that has a number already, and begins when it is told to.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
}

impl Waiting {
    /// Prepares a program in a namespace.
    pub fn program<S: AsRef<OsStr>>(namespace: &Namespace, program: &str, arguments: &[S]) -> Self {
        Self::prepared(namespace, program, arguments, |_| {})
    }

    /// The same, in a control group.
    pub fn in_group<S: AsRef<OsStr>>(
        namespace: &Namespace,
        group: &ControlGroup,
        program: &str,
        arguments: &[S],
    ) -> Self {
        Self::prepared(namespace, program, arguments, |command| group.enter(command))
    }

    fn prepared<S: AsRef<OsStr>>(
        namespace: &Namespace,
        program: &str,
        arguments: &[S],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = namespace.command("sh");
        // The shell becomes the program, so the number stays.
        command.args(["-c", "read go; exec \"$0\" \"$@\""]).arg(program).args(arguments);
        command.env("PGPASSWORD", "secret").stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        Self { child: command.stderr(Stdio::inherit()).spawn().expect("there is a shell") }
    }

    /// Its number.
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Lets it begin, tells it this, and returns what it printed.
    pub fn go(mut self, input: &str) -> String {
        let mut stdin = self.child.stdin.take().expect("it is piped");
        stdin.write_all(format!("go\n{input}").as_bytes()).expect("it reads");
        drop(stdin);
        let output = self.child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// nginx at port 8080 of a namespace of its own, or nothing if it cannot run, which has then been said. `/text` is a text.
pub fn nginx() -> Option<(Namespace, Peer)> {
    if !require_root() || !require_tool("curl") {
        return None;
    }
    let namespace = Namespace::new();
    let lines =
        "listen 127.0.0.1:8080;\nlocation /text { default_type text/plain; return 200 \"some text\\n\"; }";
    let nginx = namespace.run(|| Peer::nginx(lines))?;
    Some((namespace, nginx))
}

/// curl, with a secret in a header.
pub fn curl(namespace: &Namespace, arguments: &[&str]) -> Waiting {
    Waiting::program(namespace, "curl", &curl_arguments(arguments))
}

/// The same, in a control group.
pub fn curl_in_group(namespace: &Namespace, group: &ControlGroup, arguments: &[&str]) -> Waiting {
    Waiting::in_group(namespace, group, "curl", &curl_arguments(arguments))
}

fn curl_arguments<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["-s", "-o", "/dev/null", "-H", "Authorization: Bearer canary-in-a-mine"], arguments].concat()
}

/// What tshark says of a file.
pub fn tshark(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("tshark");
    succeed(command.arg("-n").arg("-r").arg(file).args(arguments))
}
