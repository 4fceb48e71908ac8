//! Who looks at the traffic, and how much of it they keep.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStderr, Stdio},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use weir_integration::{Namespace, tap_command::TapCommand};

use super::{Taken, exchanged, kept};
use crate::traffic::{self, Load, Server};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7100);

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Nobody.
    Alone,
    /// Nobody once more.
    AloneAgain,
    /// `weir tap`, at somebody else.
    Unmatched,
    /// `weir tap` at the server, which writes to nowhere.
    TapNowhere,
    /// `tcpdump`, which writes to nowhere.
    DumpNowhere,
    /// `weir tap` at the server, which writes a file.
    TapFile,
    /// The same without looking for secrets.
    TapPlainFile,
    /// `tcpdump`, which writes a file.
    DumpFile,
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Alone,
        Self::AloneAgain,
        Self::Unmatched,
        Self::TapNowhere,
        Self::DumpNowhere,
        Self::TapFile,
        Self::TapPlainFile,
        Self::DumpFile,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::AloneAgain => "alone again",
            Self::Unmatched => "weir tap of somebody else",
            Self::TapNowhere => "weir tap to nowhere",
            Self::DumpNowhere => "tcpdump to nowhere",
            Self::TapFile => "weir tap to a file",
            Self::TapPlainFile => "weir tap, no masks, file",
            Self::DumpFile => "tcpdump to a file",
        }
    }
}

/// A server on the loopback interface of a namespace.
pub(super) struct Stage {
    namespace: Namespace,
    server: Server,
    directory: TempDir,
}

impl Stage {
    pub(super) fn new() -> anyhow::Result<Self> {
        let namespace = Namespace::new();
        let server = Server::listen(&namespace, SERVER.into())?;
        Ok(Self { namespace, server, directory: tempfile::tempdir()? })
    }

    /// One measurement.
    pub(super) fn take(&self, way: Way, load: Load, milliseconds: u64) -> anyhow::Result<Taken> {
        let file = self.directory.path().join("capture");
        let nowhere = Path::new("/dev/null");
        let measure = || {
            let address = SocketAddr::from(SERVER);
            traffic::measure(load, &self.namespace, address, &self.server, milliseconds, &[])
        };
        let pid = std::process::id().to_string();
        let (measured, kept) = match way {
            Way::Alone | Way::AloneAgain => (measure()?, None),
            Way::Unmatched => {
                let tap = TapCommand::start(&["--comm", "nobody-has-this", "--payload", "none"]);
                let measured = measure()?;
                tap.end();
                (measured, None)
            }
            Way::TapNowhere | Way::TapFile | Way::TapPlainFile => {
                let is_file = way != Way::TapNowhere;
                let path = if is_file { &file } else { nowhere };
                let name = path.to_str().context("the path is UTF-8")?;
                let mut arguments = vec!["--pid", &pid, "--role", "server", "--payload", "full"];
                arguments.extend(["--limit", "1MiB", "-o", "pcapng", "-w", name]);
                if way == Way::TapPlainFile {
                    arguments.extend(["--no-redact", "--reason", "benchmark"]);
                }
                let tap = TapCommand::start(&arguments);
                let measured = measure()?;
                let tapped = tap.end();
                let kept = if is_file {
                    #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
                    let kept = kept::in_pcapng(path)? as f64;
                    kept / exchanged(load, &measured)
                } else {
                    let numbers = numbers(&tapped.messages, "captured ");
                    ensure!(numbers.len() >= 2, "weir tap says: {}", tapped.messages);
                    numbers[0] / numbers[1]
                };
                (measured, Some(kept))
            }
            Way::DumpNowhere | Way::DumpFile => {
                let path = if way == Way::DumpFile { &file } else { nowhere };
                let dump = Dump::start(&self.namespace, path)?;
                let measured = measure()?;
                let said = dump.end()?;
                let kept = if way == Way::DumpFile {
                    #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
                    let kept = kept::in_pcap(path)? as f64;
                    kept / exchanged(load, &measured)
                } else {
                    // Packets captured, received by the filter, and dropped.
                    let numbers = numbers(&said, "");
                    ensure!(numbers.len() >= 3, "tcpdump says: {said}");
                    numbers[0] / (numbers[0] + numbers[2])
                };
                (measured, Some(kept))
            }
        };
        if file.exists() {
            // Nobody is to wait for what the one before him has left to be written.
            fs::remove_file(&file).context("cannot remove a capture")?;
            nix::unistd::sync();
        }
        // What clients exchange before they are counted is little.
        Ok(Taken { measured, kept: kept.map(|share| share.min(1.0)) })
    }
}

/// Numbers of a text behind a word; commas group digits.
fn numbers(text: &str, behind: &str) -> Vec<f64> {
    let text = text.split_once(behind).map_or(text, |(_, rest)| rest).replace(',', "");
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A `tcpdump` that runs.
struct Dump {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Dump {
    fn start(namespace: &Namespace, path: &Path) -> anyhow::Result<Self> {
        let port = SERVER.1.to_string();
        let mut command = namespace.command("tcpdump");
        command.args(["-i", "lo", "-n", "-Z", "root", "-w"]).arg(path).args(["tcp", "port", &port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start tcpdump")?;
        let mut stderr = BufReader::new(child.stderr.take().context("it is piped")?);
        let mut said = String::new();
        while !said.contains("listening on") {
            ensure!(stderr.read_line(&mut said)? > 0, "tcpdump ended: {said}");
        }
        Ok(Self { child, stderr })
    }

    fn end(mut self) -> anyhow::Result<String> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        ensure!(self.child.wait()?.success(), "tcpdump failed: {said}");
        Ok(said)
    }
}
