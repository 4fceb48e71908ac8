//! A tcpdump that runs beside Weir, and what it saw.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_flow::Direction;

use crate::VethEnd;

/// How long frames may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a pcap file's header, and of that of each record.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A running tcpdump on one interface and in one direction. Ends when dropped.
#[derive(Debug)]
pub struct Tcpdump {
    child: Child,
    output: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Tcpdump {
    /// Starts one and waits until it listens.
    pub fn on(end: &VethEnd, direction: Direction) -> Self {
        let way = match direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        let arguments = format!("-i {} -Q {way} -n -s 0 -B 32768 --immediate-mode -Z root -U -w -", end.name);
        let mut command = end.namespace.command("tcpdump");
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tcpdump is installed");
        let mut stdout = child.stdout.take().expect("it is piped");
        let (sender, output) = sync_channel(1024);
        thread::spawn(move || {
            loop {
                let mut bytes = vec![0; 65_536];
                match stdout.read(&mut bytes) {
                    Ok(count @ 1..) => bytes.truncate(count),
                    _ => break,
                }
                if sender.send(bytes).is_err() {
                    break;
                }
            }
        });
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let count = stderr.read_line(&mut line).expect("tcpdump speaks UTF-8");
            assert_ne!(count, 0, "tcpdump ended before it listened");
        }
        child.stderr = Some(stderr.into_inner());
        Self { child, output, bytes: Vec::new() }
    }

    /// Waits for as many frames, ends it and returns all frames that it saw. Panics if it lost any.
    pub fn finish(mut self, frames: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        while self.frames().len() < frames && Instant::now() < deadline {
            match self.output.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => self.bytes.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("tcpdump ended"),
            }
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, Signal::SIGINT).expect("it runs");
        for bytes in &self.output {
            self.bytes.extend(bytes);
        }
        let mut summary = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut summary).expect("tcpdump speaks UTF-8");
        assert!(summary.contains("0 packets dropped by kernel"), "{summary}");
        self.frames()
    }

    /// Whole frames so far.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut rest = self.bytes.get(FILE_HEADER..).unwrap_or_default();
        while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER) {
            let number = |at: usize| {
                let bytes = header[at..at + 4].try_into().expect("four bytes");
                u32::from_ne_bytes(bytes) as usize
            };
            let Some((frame, next)) = behind.split_at_checked(number(8)) else { break };
            assert_eq!(number(8), number(12), "tcpdump cuts frames");
            frames.push(frame.to_vec());
            rest = next;
        }
        frames
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
