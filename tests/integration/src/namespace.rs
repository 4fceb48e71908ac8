//! A network namespace of a test's own.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd},
    os::unix::process::CommandExt,
    process::{self, Command, Stdio},
};

use nix::sched::{CloneFlags, setns};
use weir_datapath::netns::Netns;

use crate::{permission::succeed, tcp::wait_until};

/// A fresh network namespace, held by a descriptor. It ends with the last of its users: this value, sockets that were
/// opened inside, processes that were started inside.
///
/// The loopback interface is up. IPv6 is quiet: no duplicate address detection, no router solicitations, no link-local
/// addresses, so that nothing is sent that the test did not send.
#[derive(Clone, Debug)]
pub struct Namespace {
    netns: Netns,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// Makes one. Needs root: ask [`crate::require_root`] first.
    pub fn new() -> Self {
        let namespace = Self { netns: Netns::unnamed().expect("needs root: ask require_root first") };
        for scope in ["all", "default"] {
            for (setting, value) in [
                ("accept_dad", "0"),
                ("dad_transmits", "0"),
                ("router_solicitations", "0"),
                ("accept_ra", "0"),
                ("autoconf", "0"),
                ("addr_gen_mode", "1"),
            ] {
                namespace.sysctl(&format!("net/ipv6/conf/{scope}/{setting}"), value);
            }
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// The namespace as the datapath knows it.
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Runs `work` inside, on a thread of its own. Sockets that it opens stay inside wherever they are used.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).expect("a namespace of our own can be entered")
    }

    /// A command whose process will start inside, like `ip netns exec` but without a mount namespace: `/sys/class/net`
    /// is still that of the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let netns = self.netns.clone();
        let enter = move || setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe and allocates nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip ARGUMENTS`, split at white space, and returns what it printed. Panics if it fails.
    pub fn ip(&self, arguments: &str) -> String {
        self.tool("ip", arguments)
    }

    /// Runs several `ip` commands in one process.
    pub fn ip_batch(&self, commands: &[impl AsRef<str>]) {
        let mut ip = self.command("ip");
        ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ip.spawn().expect("ip is installed");
        let mut input = child.stdin.take().expect("it is piped");
        for command in commands {
            writeln!(input, "{}", command.as_ref()).expect("ip reads its commands");
        }
        drop(input);
        let output = child.wait_with_output().expect("ip ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `tc ARGUMENTS` as [`Namespace::ip`] does.
    pub fn tc(&self, arguments: &str) -> String {
        self.tool("tc", arguments)
    }

    /// Runs any program as [`Namespace::ip`] does.
    pub fn tool(&self, program: &str, arguments: &str) -> String {
        succeed(self.command(program).args(arguments.split_whitespace()))
    }

    /// Writes a setting below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, setting: &str, value: &str) {
        let path = format!("/proc/sys/{setting}");
        self.run(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }

    /// Switches offloads of an interface, for example `offload("eth0", "tso off gso off gro off")`.
    pub fn offload(&self, interface: &str, settings: &str) {
        self.tool("ethtool", &format!("-K {interface} {settings}"));
    }

    /// Waits until an interface that is set up sends. The kernel learns of a carrier by itself a moment after the other end
    /// of a wire is up, and until then it drops what is sent without a word.
    pub fn until_it_sends(&self, interface: &str) {
        wait_until("the interface has a carrier", || {
            let shown = self.ip(&format!("-o link show dev {interface}"));
            shown.contains(" state UP ") && !shown.contains(" qdisc noop ")
        });
    }

    /// A path that opens this namespace, for tools that want one: `ip link set NAME netns PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.netns.as_fd().as_raw_fd())
    }
}
