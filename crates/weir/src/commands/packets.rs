//! `weir packets`: one line per packet, or a capture file.
//!
//! The filter decides packet by packet: `dport=53` shows queries, `port=53` their answers too. At the end the ledger
//! says what became of every packet that passed: shown, filtered, or lost because nobody read fast enough.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use weir_datapath::{
    features, interface,
    netns::Netns,
    packets::{self, Packet, PacketOptions, PacketReader},
    sockets::{Owners, SocketTable},
};
use weir_flow::{Count, ProcessLookup, filter::Filter};

use crate::{
    capture::{CaptureWriter, WrittenPacket},
    cli::{DirectionArg, PacketFormat, PacketsArgs, Pattern, UsageError},
    filter,
    live::{self, Attachment, Message, Plan},
    packet_lines,
    units::Grouped,
};

/// Longest wait for packets before looking at the time and for messages.
const WAIT: Duration = Duration::from_millis(50);

/// Time between two looks at the sockets.
const SOCKETS: Duration = Duration::from_secs(1);

pub(super) fn run(args: &PacketsArgs) -> Result<ExitCode> {
    let filter = filter::parse(args.filter())?;
    let interfaces = interface::list(&Netns::current()?)?;
    let patterns: Vec<&str> = args.interfaces.iter().map(Pattern::as_str).collect();
    interface::select(&interfaces, &patterns).map_err(|error| UsageError(error.to_string()))?;
    if let Some(missing) = features::missing_for_counting() {
        return Err(anyhow!(missing));
    }
    let sink = Sink::open(args)?;
    let plan = Plan { netns: None, patterns: args.interfaces.clone(), direction: DirectionArg::Both };
    let options =
        PacketOptions { filter: filter.pushdown(), ..PacketOptions::with_snap_length(args.snaplen) };
    let load = move || packets::load(&options).map_err(live::refusal);
    let (attachment, reader, let_go) = Attachment::start(plan, load)?;
    let capturing = Capturing {
        attachment,
        reader,
        let_go,
        filter,
        processes: Processes::start()?,
        sink,
        left: args.count,
        end: args.duration.map(|duration| Instant::now() + duration),
        shown: Count::default(),
        filtered: Count::default(),
        beyond: Count::default(),
    };
    capturing.run()
}

/// Where packets go.
enum Sink {
    Text(BufWriter<io::Stdout>, String),
    Json(BufWriter<io::Stdout>, String),
    File(CaptureWriter<BufWriter<Box<dyn Write>>>),
}

impl Sink {
    fn open(args: &PacketsArgs) -> Result<Self> {
        let stdout = || BufWriter::new(io::stdout());
        let Some(path) = &args.write else {
            return Ok(match args.output {
                PacketFormat::Text => Self::Text(stdout(), String::new()),
                PacketFormat::Json => Self::Json(stdout(), String::new()),
            });
        };
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(file)
        };
        Ok(Self::File(CaptureWriter::new(BufWriter::new(out), args.snaplen)?))
    }

    fn write(&mut self, packet: &Packet<'_>, record: Option<&weir_flow::Record>) -> io::Result<()> {
        match self {
            Self::Text(out, line) => {
                line.clear();
                packet_lines::text(packet, record, line);
                out.write_all(line.as_bytes())
            }
            Self::Json(out, line) => {
                line.clear();
                packet_lines::json(packet, record, line);
                out.write_all(line.as_bytes())
            }
            Self::File(writer) => writer.write(&WrittenPacket {
                ifindex: packet.point.ifindex,
                interface: &packet.point.interface,
                link: packet.link,
                direction: packet.point.direction,
                time_ns: packet.wall.0,
                original_length: packet.length,
                data: packet.frame,
                comment: &packet_lines::comment(packet, record),
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Text(out, _) | Self::Json(out, _) => out.flush(),
            Self::File(writer) => writer.flush(),
        }
    }
}

struct Capturing {
    attachment: Attachment,
    reader: PacketReader,
    let_go: Receiver<()>,
    filter: Filter,
    processes: Processes,
    sink: Sink,
    /// Packets still to be shown, if there is a limit.
    left: Option<u64>,
    end: Option<Instant>,
    shown: Count,
    filtered: Count,
    /// Captured, but after the last one that was asked for.
    beyond: Count,
}

impl Capturing {
    fn run(mut self) -> Result<ExitCode> {
        let mut failure = None;
        loop {
            while let Some(message) = self.attachment.poll() {
                match message {
                    Message::Note(text) => writeln!(io::stderr(), "weir: {text}")?,
                    Message::Stop => self.attachment.stop(),
                    Message::Failed(error) => failure = Some(error),
                    Message::Witness(_) | Message::Interval(_) | Message::Ended(_) => {}
                }
            }
            self.read(WAIT)?;
            let is_over = self.left == Some(0) || self.end.is_some_and(|end| Instant::now() >= end);
            if is_over {
                self.attachment.stop();
            }
            if matches!(self.let_go.try_recv(), Err(TryRecvError::Disconnected)) {
                break;
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.reader.settle()?;
        while self.read(Duration::ZERO)? > 0 {}
        let summary = self.summary()?;
        io::stderr().write_all(summary.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Takes what is there, waiting for the first packet as long as `timeout`; says how many there were.
    fn read(&mut self, timeout: Duration) -> Result<usize> {
        let Self { reader, filter, processes, sink, left, shown, filtered, beyond, .. } = self;
        let mut written = Ok(());
        let count = reader.read(timeout, |packet| {
            let count = Count { packets: 1, bytes: packet.length.into() };
            if *left == Some(0) {
                *beyond += count;
                return ControlFlow::Continue(());
            }
            let record = packet_lines::record(packet, processes.lookup());
            // Without a filter, packets that are not IP are shown as well.
            let is_wanted = filter.is_empty() || record.as_ref().is_some_and(|record| filter.matches(record));
            if !is_wanted {
                *filtered += count;
                return ControlFlow::Continue(());
            }
            *shown += count;
            if let Some(left) = left {
                *left -= 1;
            }
            written = sink.write(packet, record.as_ref());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
        if count > 0 {
            sink.flush()?;
        }
        Ok(count)
    }

    /// What became of every packet that passed.
    fn summary(&mut self) -> Result<String> {
        let mut sum = packets::PacketLedger::default();
        for (_, ledger) in self.reader.ledgers()? {
            sum += ledger;
        }
        let named = [
            ("filtered", sum.filtered + self.filtered),
            ("lost: nobody read fast enough", sum.lost),
            ("after the last one", self.beyond),
        ];
        let mut parts = vec![format!(
            "{} packets seen; {} shown",
            Grouped(sum.seen.packets),
            Grouped(self.shown.packets)
        )];
        let cut = ("longer than --snaplen", sum.cut);
        for (name, count) in named.iter().chain([&cut]).filter(|(_, count)| count.packets > 0) {
            parts.push(format!("{} {name}", Grouped(count.packets)));
        }
        let mut text = parts.join("; ") + "\n";
        let accounted = named.iter().fold(self.shown, |total, (_, count)| total + *count);
        if accounted != sum.seen {
            writeln!(text, "weir: {accounted:?} of {:?} are accounted for", sum.seen)
                .expect("a string takes any text");
        }
        Ok(text)
    }
}

/// Who owns which socket, looked up anew every second on a thread of its own: the reader must not wait for it.
struct Processes {
    owners: Option<Owners>,
    /// Dropped at the end, which ends the thread.
    _running: SyncSender<()>,
}

impl Processes {
    fn start() -> Result<Self> {
        let (running, over) = sync_channel(0);
        // Without names of processes, packets are still worth seeing.
        let table = SocketTable::open(&[]).ok();
        let owners = table.as_ref().map(SocketTable::owners);
        if let Some(mut table) = table {
            table.snapshot().ok();
            let look = move || {
                while matches!(over.recv_timeout(SOCKETS), Err(RecvTimeoutError::Timeout)) {
                    table.snapshot().ok();
                }
            };
            thread::Builder::new()
                .name("weir-sockets".to_owned())
                .spawn(look)
                .context("cannot start a thread")?;
        }
        Ok(Self { owners, _running: running })
    }

    fn lookup(&self) -> Option<&dyn ProcessLookup> {
        self.owners.as_ref().map(|owners| owners as &dyn ProcessLookup)
    }
}
