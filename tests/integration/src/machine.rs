//! A machine that commands are typed on: a namespace of its own, `/run`, `/sys/fs/bpf` and control groups of its own,
//! `weir` in the path.
//!
//! What is pinned, and files under `/run`, end with it, however the test ends. So the usual paths can be used, and
//! machines of several tests do not meet.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Namespace, agent::binary, cgroup::ControlGroup, tcp::wait_until};

/// What its shell says once everything is mounted.
const READY: &str = "ready";

/// A machine. Dropped, `weir proxy` is torn down and everything that it mounted is gone.
pub struct Machine {
    namespace: Namespace,
    /// Holds the mounts.
    holder: Child,
    /// What is the topmost control group there. Empty: no process of a test is diverted by its socket.
    group: Option<ControlGroup>,
}

impl Machine {
    /// Makes one of this namespace. Needs root.
    pub fn new(namespace: &Namespace) -> Self {
        static MACHINES: AtomicU32 = AtomicU32::new(0);
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let group = ControlGroup::make(&format!("machine-{number}"));
        let groups = group.as_ref().map_or(String::new(), |group| {
            format!("mount --bind {} {} && ", group.path().display(), group.mount().display())
        });
        let script = format!(
            "{groups}mount -t tmpfs tmpfs /run && mount -t bpf bpf /sys/fs/bpf && echo ready && exec sleep infinity"
        );
        let mut holder = namespace
            .command("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut line = String::new();
        let output = holder.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says that it is ready");
        assert_eq!(line.trim_end(), READY, "tmpfs and a BPF file system can be mounted");
        Self { namespace: namespace.clone(), holder, group }
    }

    /// Its namespace.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where its control groups are mounted; `None` if there are none here, which has been said.
    pub fn groups(&self) -> Option<&Path> {
        self.group.as_ref().map(ControlGroup::mount)
    }

    /// A command that will run on it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--target", &target, "--mount", "--net", "--", program]).env("PATH", path());
        command
    }

    /// What is typed into its shell. Not before it has ended does the test go on.
    pub fn shell(&self, line: &str) -> Output {
        self.command("bash").args(["-c", line]).stdin(Stdio::null()).output().expect("nsenter is installed")
    }

    /// Kills the control process of `weir proxy`, and waits until nobody listens any more, which comes after its end.
    pub fn kill_proxy(&self) {
        self.types(
            "ask='curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/v1/status'
             kill -9 $($ask | grep -o 'pid\":[0-9]*' | cut -d: -f2)",
        );
        self.until_no_proxy();
    }

    /// Waits until nobody listens for commands to `weir proxy`.
    pub fn until_no_proxy(&self) {
        let ask = "curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/v1/status >/dev/null";
        wait_until("nobody listens any more", || self.shell(ask).status.code() == Some(7));
    }

    /// The same; it must succeed, and what it printed is the answer.
    pub fn types(&self, line: &str) -> String {
        let output = self.shell(line);
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {printed}{said}{}", self.log());
        printed
    }

    /// The same; it must fail with this exit code, and what it complained about is the answer.
    pub fn types_in_vain(&self, line: &str, exit_code: i32) -> String {
        let output = self.shell(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit_code), "{line}: {}{said}", text(&output.stdout));
        said
    }

    /// What the control process in the background said.
    pub fn log(&self) -> String {
        let output = self.shell("cat /run/weir/proxy/log 2>/dev/null");
        text(&output.stdout)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Ends a control process in the background; the rest would go by itself.
        drop(self.shell("timeout 20 weir proxy teardown"));
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The directory of `weir`, then where programs usually are.
fn path() -> String {
    let binary: PathBuf = binary();
    let directory = binary.parent().expect("it is in a directory").display().to_string();
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    format!("{directory}:{usual}")
}
