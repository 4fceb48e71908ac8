//! `weir packets` as a user runs it: what it writes is what tcpdump writes beside it, byte for byte.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pcap_file::{
    pcap::PcapReader,
    pcapng::{Block, PcapNgReader},
};
use serde_json::Value;
use weir_integration::{
    Namespace, Neighbours, Veth, agent::binary, require_root, require_tool, traffic::UdpFlow,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Ends a program as Ctrl-C does, and returns what it said on standard error.
fn interrupt(mut child: Child) -> String {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid fits")), Signal::SIGINT).expect("it runs");
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).expect("messages are UTF-8");
    }
    assert!(child.wait().expect("it ends").success(), "{text}");
    text
}

/// Original length and bytes.
type Frame = (u32, Vec<u8>);

/// Frames that are in the file so far: unless it `is_over`, one that is being written has not come yet.
fn frames_of_weir(path: &Path, is_over: bool) -> Vec<Frame> {
    let mut reader = PcapNgReader::new(File::open(path).expect("weir wrote it")).expect("it is pcapng");
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        match block {
            Ok(Block::EnhancedPacket(packet)) => frames.push((packet.original_len, packet.data.to_vec())),
            Ok(_) => {}
            Err(error) => {
                assert!(!is_over, "{}: {error}", path.display());
                break;
            }
        }
    }
    frames
}

/// The same of tcpdump. A file that is still being written may be cut at its end.
fn frames_of_tcpdump(path: &Path, is_over: bool) -> Vec<Frame> {
    let mut reader = PcapReader::new(File::open(path).expect("tcpdump wrote it")).expect("it is pcap");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        match packet {
            Ok(packet) => frames.push((packet.orig_len, packet.data.to_vec())),
            Err(error) if is_over => panic!("tcpdump's file is damaged: {error}"),
            Err(_) => break,
        }
    }
    frames
}

/// Those with this UDP port at an offset where IPv4 without options has one.
fn with_port(frames: Vec<Frame>, port: u16) -> Vec<Frame> {
    let has_port = |frame: &Frame, at: usize| frame.1.get(at..at + 2) == Some(&port.to_be_bytes());
    frames.into_iter().filter(|frame| has_port(frame, 34) || has_port(frame, 36)).collect()
}

/// Knocks until `is_heard`.
fn knock(flow: &UdpFlow, is_heard: impl Fn() -> bool) {
    let start = Instant::now();
    let mut reply = [0; 4];
    flow.sender.set_read_timeout(Some(Duration::from_millis(20))).expect("it can be set");
    while !is_heard() {
        flow.sender.send(&[0; 4]).expect("it can be sent");
        // Nobody answers: this is a wait of 20 ms.
        drop(flow.sender.recv(&mut reply));
        assert!(start.elapsed() < PATIENCE, "nobody hears the knock");
    }
}

struct Stage {
    left: Namespace,
    wire: Veth,
    directory: tempfile::TempDir,
}

fn stage() -> Stage {
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 5, Neighbours::Static);
    Stage { left, wire, directory: tempfile::tempdir().expect("there is room") }
}

impl Stage {
    fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = self.left.command(binary());
        command.args(["packets", "-i", "left0"]).args(arguments).stderr(Stdio::piped());
        command
    }

    fn flow(&self) -> UdpFlow {
        UdpFlow::open(&self.wire.left, &self.wire.right, false)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn weir_and_tcpdump_write_the_same_frames() {
    if !require_root() || !require_tool("tcpdump") {
        return;
    }
    let stage = stage();
    let (ours, theirs) = (stage.path("weir.pcapng"), stage.path("tcpdump.pcap"));
    let mut tcpdump = stage
        .left
        .command("tcpdump")
        .args(["-U", "-n", "-Z", "root", "-s", "65535", "-i", "left0", "-w"])
        .arg(&theirs)
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump starts");
    let mut said = BufReader::new(tcpdump.stderr.take().expect("it is piped")).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")))
        .expect("tcpdump listens")
        .ok();

    let path = ours.to_str().expect("the path is UTF-8");
    let weir = stage.weir(&["-w", path, "--snaplen", "65535"]).spawn().expect("weir starts");
    // The first packet takes the head of the file along.
    knock(&stage.flow(), || fs::metadata(&ours).is_ok_and(|file| file.len() > 0));

    let flow = stage.flow();
    for length in [0, 1, 100, 1_400] {
        flow.sender.send(&vec![0x5a; length]).expect("it can be sent");
        flow.receiver.send(&vec![0xa5; length]).expect("it can be sent");
    }
    let is_written = || with_port(frames_of_tcpdump(&theirs, false), flow.source().port()).len() >= 8;
    knock(&stage.flow(), is_written);
    let summary = interrupt(weir);
    // It was reading when it was told to end.
    kill(Pid::from_raw(i32::try_from(tcpdump.id()).expect("a pid fits")), Signal::SIGINT).expect("it runs");
    tcpdump.wait().expect("it ends");

    let ours = with_port(frames_of_weir(&ours, true), flow.source().port());
    let theirs = with_port(frames_of_tcpdump(&theirs, true), flow.source().port());
    assert_eq!(ours.len(), 8, "{summary}");
    assert_eq!(ours, theirs);
    assert!(!summary.contains("lost"), "{summary}");
    assert!(!summary.contains("accounted for"), "{summary}");
}

#[test]
fn tshark_reads_the_file_with_names_comments_and_counts() {
    if !require_root() || !require_tool("tshark") {
        return;
    }
    let stage = stage();
    let path = stage.path("weir.pcapng");
    let flow = stage.flow();
    let filter = format!("port={}", flow.source().port());
    let arguments = ["-w", path.to_str().expect("the path is UTF-8"), "--snaplen", "60", &filter];
    let weir = stage.weir(&arguments).spawn().expect("weir starts");
    knock(&flow, || fs::metadata(&path).is_ok_and(|file| file.len() > 0));
    flow.sender.send(&[7; 500]).expect("it can be sent");
    let other = stage.flow();
    other.sender.send(&[7; 7]).expect("it can be sent");
    knock(&flow, || frames_of_weir(&path, false).iter().any(|frame| frame.0 == 14 + 20 + 8 + 500));
    let summary = interrupt(weir);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "packets are nobody else's business");

    let fields = ["frame.interface_name", "frame.packet_flags_direction", "frame.comment", "frame.cap_len"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-T", "fields", "-r"]).arg(&path).args(fields.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().expect("tshark starts");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("file"), "{complaints}");
    let text = String::from_utf8(output.stdout).expect("tshark writes UTF-8");
    let frames = frames_of_weir(&path, true).len();
    assert_eq!(text.lines().count(), frames, "{text}");
    let process = format!("({})>", std::process::id());
    for line in text.lines() {
        let [name, direction, comment, length] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(name, "left0", "{line}");
        assert!(direction.ends_with("02"), "sent: {line}");
        assert!(comment.contains(&process), "{line}");
        assert!(length.parse::<u32>().expect("a number") <= 60, "{line}");
    }

    let counts = statistics_of_weir(&path);
    let count = |number: usize| u64::try_from(number).expect("it is a count");
    let [seen, lost, accepted, written] = counts;
    assert_eq!((lost, accepted, written), (0, count(frames), count(frames)), "{summary}");
    assert_eq!(seen, count(frames) + 1, "the other flow: {summary}");
}

/// What the file says of its interface: packets seen, lost, accepted and written.
fn statistics_of_weir(path: &Path) -> [u64; 4] {
    use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption as Statistic;
    let mut reader = PcapNgReader::new(File::open(path).expect("weir wrote it")).expect("it is pcapng");
    let mut counts = [0; 4];
    while let Some(block) = reader.next_block() {
        let Block::InterfaceStatistics(statistics) = block.expect("it is whole") else { continue };
        for option in statistics.options {
            match option {
                Statistic::IsbIfRecv(count) => counts[0] = count,
                Statistic::IsbIfDrop(count) => counts[1] = count,
                Statistic::IsbFilterAccept(count) => counts[2] = count,
                Statistic::IsbUsrDeliv(count) => counts[3] = count,
                _ => {}
            }
        }
    }
    counts
}

#[test]
fn packets_are_shown_with_their_process_until_enough_came() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let flow = stage.flow();
    let filter = format!("port={}", flow.source().port());
    let mut weir = stage.weir(&["-o", "json", "--count", "3", &filter]);
    let mut weir = weir.stdout(Stdio::piped()).spawn().expect("weir starts");
    let mut lines = BufReader::new(weir.stdout.take().expect("it is piped")).lines();
    let knocking = std::thread::spawn({
        let sender = flow.sender.try_clone().expect("a socket can be shared");
        move || {
            let start = Instant::now();
            while weir.try_wait().expect("it is ours").is_none() {
                assert!(start.elapsed() < PATIENCE, "it does not end");
                sender.send(&[7; 7]).expect("it can be sent");
                sender.set_read_timeout(Some(Duration::from_millis(20))).expect("it can be set");
                drop(sender.recv(&mut [0; 4]));
            }
            let mut summary = String::new();
            weir.stderr.take().expect("it is piped").read_to_string(&mut summary).expect("it is UTF-8");
            (weir.wait().expect("it ended").success(), summary)
        }
    });
    let mut shown = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        shown.push(serde_json::from_str::<Value>(&line).expect("weir writes JSON"));
    }
    let (succeeded, summary) = knocking.join().expect("it does not panic");
    assert!(succeeded, "{summary}");
    assert_eq!(shown.len(), 3, "{summary}");
    assert!(summary.contains("; 3 shown"), "{summary}");
    for packet in shown {
        assert_eq!(packet["source.port"], flow.source().port());
        assert_eq!(packet["packet.length"], 14 + 20 + 8 + 7);
        assert_eq!(packet["flow.direction"], "egress");
        assert_eq!(packet["source.process.pid"], std::process::id(), "{packet}");
    }
}
