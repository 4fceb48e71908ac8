//! [`Sink`]: where packets go, standard output or a capture file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use weir_agent::pcapng::{BlockByBlock, CaptureWriter, FileNotes, Statistics, WrittenPacket};
use weir_datapath::packets::{Packet, PacketLedger};
use weir_flow::{Point, Record, Wall};

use super::{Tally, lines};
use crate::{
    cli::{PacketFormat, PacketsArgs, UsageError},
    clock,
};

/// Bytes that are collected before they are written; less where no more packets wait.
const BUFFER: usize = 256 << 10;

/// A file, a FIFO or standard output, by blocks.
type Target = BlockByBlock<BufWriter<Box<dyn Write>>>;

/// Where packets go.
pub(crate) enum Sink {
    /// To standard output.
    Lines {
        /// In this form.
        format: PacketFormat,
        /// Used anew for each packet.
        line: String,
        /// There.
        output: BufWriter<io::Stdout>,
    },
    /// To a file.
    File {
        /// That is being written.
        writer: Box<CaptureWriter<Target>>,
        /// And is called so.
        name: String,
        /// When it was begun.
        start: Wall,
    },
}

impl Sink {
    /// Opens what the arguments name.
    pub(crate) fn open(args: &PacketsArgs) -> Result<Self> {
        let Some(path) = &args.write else {
            let output = BufWriter::with_capacity(BUFFER, io::stdout());
            return Ok(Self::Lines { format: args.output, line: String::new(), output });
        };
        let (target, name): (Box<dyn Write>, _) = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                let text = "a pcapng file is not for a terminal: use -w FILE, or a pipe behind -w -";
                return Err(UsageError(text.to_owned()).into());
            }
            (Box::new(io::stdout()), "to standard output".to_owned())
        } else {
            let name = path.display().to_string();
            (Box::new(create(path).with_context(|| format!("cannot write {name}"))?), name)
        };
        let filter = args.filter().text();
        let comment = if filter.is_empty() { filter } else { format!("filter: {filter}") };
        let notes = FileNotes { system: &system(), comment: &comment };
        let target = BlockByBlock::new(BufWriter::with_capacity(BUFFER, target));
        let writer = CaptureWriter::new(target, args.snaplen, &notes)
            .with_context(|| format!("cannot write {name}"))?;
        Ok(Self::File { writer: Box::new(writer), name, start: clock::now() })
    }

    /// Takes one packet.
    pub(crate) fn write(&mut self, packet: &Packet<'_>, record: Option<&Record>) -> Result<()> {
        match self {
            Self::Lines { format, line, output } => {
                line.clear();
                match format {
                    PacketFormat::Text => lines::text(packet, record, line),
                    PacketFormat::Json => lines::json(packet, record, line),
                }
                output.write_all(line.as_bytes())?;
            }
            Self::File { writer, name, .. } => {
                let written = WrittenPacket {
                    ifindex: packet.point.ifindex,
                    interface: &packet.point.interface,
                    link: packet.link,
                    direction: packet.point.direction,
                    time_ns: packet.wall.0,
                    original_length: packet.length,
                    data: packet.frame,
                    comment: &lines::comment(packet, record),
                };
                writer.write(&written).with_context(|| format!("cannot write {name}"))?;
            }
        }
        Ok(())
    }

    /// Hands on what is there.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Self::Lines { output, .. } => output.flush()?,
            Self::File { writer, name, .. } => {
                writer.flush().with_context(|| format!("cannot write {name}"))?;
            }
        }
        Ok(())
    }

    /// Adds what is only known at the end: to a file, what became of the packets of each interface in it.
    pub(crate) fn finish(&mut self, ledgers: &[(Arc<Point>, PacketLedger)], tally: &Tally) -> Result<()> {
        if let Self::File { writer, name, start } = self {
            let mut interfaces: Vec<(&Point, Statistics)> = Vec::new();
            for (point, ledger) in ledgers {
                let is_same =
                    |other: &Point| (other.ifindex, &other.interface) == (point.ifindex, &point.interface);
                let place = interfaces.iter().position(|(other, _)| is_same(other)).unwrap_or_else(|| {
                    let (start_ns, end_ns) = (start.0, clock::now().0);
                    interfaces.push((point, Statistics { start_ns, end_ns, ..Statistics::default() }));
                    interfaces.len() - 1
                });
                let totals = tally.totals(point.id, ledger);
                let statistics = &mut interfaces[place].1;
                statistics.seen += totals.seen.packets;
                statistics.lost += totals.lost.packets;
                statistics.accepted += totals.seen.packets.saturating_sub(totals.filtered.packets);
                statistics.written += totals.shown.packets;
            }
            for (point, statistics) in interfaces {
                writer
                    .statistics((point.ifindex, &point.interface), &statistics, "")
                    .with_context(|| format!("cannot write {name}"))?;
            }
        }
        self.flush()
    }
}

/// Creates the file, or empties it. What passes an interface is nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The name of the system, `Linux 6.12.0`.
fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim()).trim_end().to_owned()
}
