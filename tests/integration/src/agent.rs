//! A running `weir agent` in a namespace.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Namespace,
    http::{self, Answer},
    permission::succeed,
};

/// Where agents of tests listen, each in a namespace of its own.
pub const ADDRESS: &str = "127.0.0.1:4780";

const PATIENCE: Duration = Duration::from_mins(1);

/// A running agent. It is killed when this is dropped.
pub struct Agent {
    child: Child,
    namespace: Namespace,
    messages: Arc<Messages>,
    /// Disconnected when its standard error is at its end.
    ended: Receiver<()>,
    /// Where its store is.
    directory: Arc<TempDir>,
}

/// What it said so far, and who waits for more.
#[derive(Default)]
struct Messages {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let tests = std::env::current_exe().expect("a test is a file");
    let path = tests.ancestors().nth(2).expect("it lies in target/debug/deps").join("weir");
    assert!(path.exists(), "build weir first: cargo build -p weir");
    path
}

/// A copy of it in this directory, for users who may not read where it was built.
///
/// Another process writes it: a descriptor of ours would be in every process that another test starts meanwhile, and the
/// kernel runs no file that somebody may still write.
pub fn copy_binary(directory: &Path) -> PathBuf {
    let copy = directory.join("weir");
    succeed(Command::new("cp").arg(binary()).arg(&copy));
    copy
}

/// A command that will run an agent in the namespace with this configuration, reading flows every 200 ms.
pub fn command(namespace: &Namespace, file: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = namespace.command(binary());
    command.arg("agent").arg("-c").arg(file.unwrap_or(Path::new("/dev/null")));
    command.args(["--set", "interval=200ms"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Agent {
    /// Starts one and waits until it counts.
    pub fn start(namespace: &Namespace, file: Option<&Path>, arguments: &[&str]) -> Self {
        let agent = Self::spawn(namespace, file, arguments);
        http::get_until(namespace, agent.address(), "/readyz", |answer| answer.status == 200);
        agent
    }

    /// Starts one and waits for nothing.
    pub fn spawn(namespace: &Namespace, file: Option<&Path>, arguments: &[&str]) -> Self {
        Self::spawn_with(namespace, file, arguments, &[])
    }

    /// The same with variables of the environment.
    pub fn spawn_with(
        namespace: &Namespace,
        file: Option<&Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("there is room"));
        Self::spawn_in(namespace, file, arguments, variables, directory)
    }

    /// Kills it as no signal handler can see, starts another with the same store, and waits until that counts.
    #[must_use]
    pub fn kill_and_start(self, file: Option<&Path>, arguments: &[&str]) -> Self {
        let (namespace, directory) = (self.namespace.clone(), Arc::clone(&self.directory));
        drop(self);
        let agent = Self::spawn_in(&namespace, file, arguments, &[], directory);
        http::get_until(&namespace, agent.address(), "/readyz", |answer| answer.status == 200);
        agent
    }

    fn spawn_in(
        namespace: &Namespace,
        file: Option<&Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
        directory: Arc<TempDir>,
    ) -> Self {
        let mut command = command(namespace, file, arguments);
        command.arg("--set").arg(format!("store.path={}", directory.path().display()));
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("weir starts");
        let messages = Arc::<Messages>::default();
        let (stderr, heard) = (child.stderr.take().expect("it is piped"), Arc::clone(&messages));
        let (running, ended) = sync_channel::<()>(0);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lines.lock().expect("nobody panics here").push(line);
                heard.more.notify_all();
            }
            drop(running);
        });
        Self { child, namespace: namespace.clone(), messages, ended, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ADDRESS.parse().expect("it is an address")
    }

    /// Where its store is, for as long as this is not dropped.
    pub fn store(&self) -> &Path {
        self.directory.path()
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Answer {
        http::get(&self.namespace, self.address(), path, &[])
    }

    /// The status.
    pub fn status(&self) -> Value {
        self.get("/api/v1/status").json()
    }

    /// Asks for the status until it is as wanted.
    pub fn status_until(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let is_wanted = |answer: &Answer| answer.status == 200 && is_wanted(&answer.json());
        http::get_until(&self.namespace, self.address(), "/api/v1/status", is_wanted).json()
    }

    /// What it said so far, on standard error.
    pub fn messages(&self) -> String {
        self.messages.lines.lock().expect("nobody panics here").join("\n")
    }

    /// Waits until it said something.
    pub fn until_says(&self, text: &str) {
        let lines = self.messages.lines.lock().expect("nobody panics here");
        let is_missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(text));
        let waited = self.messages.more.wait_timeout_while(lines, PATIENCE, is_missing);
        let (lines, timeout) = waited.expect("nobody panics here");
        assert!(!timeout.timed_out(), "it did not say `{text}`: {}", lines.join("\n"));
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, signal).expect("it runs");
    }

    /// Waits until it has ended by itself; gives back how, and what it said.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let ended = self.ended.recv_timeout(PATIENCE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "it does not end: {}", self.messages());
        (self.child.wait().expect("it is our child"), self.messages())
    }

    /// Ends it as SIGTERM does; gives back what it said.
    pub fn end(self) -> String {
        self.signal(Signal::SIGTERM);
        let (status, messages) = self.wait();
        assert!(status.success(), "{messages}");
        messages
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
