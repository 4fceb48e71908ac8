//! `weir packets`: one line per packet, or a capture file.
//!
//! The filter decides packet by packet: `dport=53` shows queries, `port=53` their answers too. At the end the ledger
//! says what became of every packet that passed: shown, filtered, or lost because nobody read fast enough.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
    process::ExitCode,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use weir_agent::live::{self, Attachment, Message, Pattern, Plan};
use weir_datapath::{
    features,
    flow::Directions,
    interface,
    netns::Netns,
    packets::{self, PacketOptions, PacketReader},
};
use weir_flow::{ProcessLookup, filter::Filter};

use crate::{
    cli::{PacketsArgs, UsageError},
    filter,
    packets::{Processes, Sink, Tally, lines},
};

/// Longest wait for packets before looking at the time and for messages.
const WAIT: Duration = Duration::from_millis(50);

pub(super) fn run(args: &PacketsArgs) -> Result<ExitCode> {
    let filter = filter::parse(args.filter())?;
    let interfaces = interface::list(&Netns::current()?)?;
    let patterns: Vec<&str> = args.interfaces.iter().map(Pattern::as_str).collect();
    interface::select(&interfaces, &patterns).map_err(|error| UsageError(error.to_string()))?;
    if let Some(missing) = features::missing_for_counting() {
        return Err(anyhow!(missing));
    }
    let sink = Sink::open(args)?;
    // Without names of processes, packets are still worth seeing. Before anything is attached, because it takes a moment,
    // in which packets would wait and the ring could fill.
    let processes = Processes::start()
        .inspect_err(|error| drop(writeln!(io::stderr(), "weir: no names of processes: {error:#}")))
        .ok();
    let plan = Plan { netns: None, patterns: args.interfaces.clone(), directions: Directions::Both };
    let options =
        PacketOptions { filter: filter.pushdown(), ..PacketOptions::with_snap_length(args.snaplen) };
    let load = move || packets::load(&options).map_err(live::refusal);
    let (attachment, reader, let_go) = Attachment::start(plan, load)?;
    let capturing = Capturing {
        attachment,
        reader,
        let_go,
        filter,
        processes,
        sink,
        tally: Tally::default(),
        left: args.count,
        end: args.duration.map(|duration| Instant::now() + duration),
    };
    capturing.run()
}

struct Capturing {
    attachment: Attachment,
    reader: PacketReader,
    let_go: Receiver<()>,
    filter: Filter,
    processes: Option<Processes>,
    sink: Sink,
    tally: Tally,
    /// Packets still to be shown, if there is a limit.
    left: Option<u64>,
    end: Option<Instant>,
}

impl Capturing {
    fn run(mut self) -> Result<ExitCode> {
        let mut failure = None;
        let mut is_over = false;
        loop {
            // Whoever lets go has told us before why.
            let is_let_go = matches!(self.let_go.try_recv(), Err(TryRecvError::Disconnected));
            while let Some(message) = self.attachment.poll() {
                match message {
                    Message::Note(text) => writeln!(io::stderr(), "weir: {text}")?,
                    Message::Stop => self.attachment.stop(),
                    Message::Failed(error) => failure = Some(error),
                    Message::Witness(_) | Message::Interval(_) | Message::Ended(_) => {}
                }
            }
            if is_let_go {
                break;
            }
            self.read(WAIT)?;
            let has_enough = self.left == Some(0) || self.end.is_some_and(|end| Instant::now() >= end);
            if has_enough && !is_over {
                is_over = true;
                self.attachment.stop();
            }
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        self.reader.settle()?;
        while self.read(Duration::ZERO)? > 0 {}
        let ledgers = self.reader.ledgers()?;
        self.sink.finish(&ledgers, &self.tally)?;
        io::stderr().write_all(self.tally.summary(&ledgers).as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Takes what is there, waiting for the first packet as long as `timeout`; says how many there were.
    fn read(&mut self, timeout: Duration) -> Result<usize> {
        let Self { reader, filter, processes, sink, tally, left, .. } = self;
        let processes = processes.as_ref().map(|processes| processes as &dyn ProcessLookup);
        let mut written = Ok(());
        let count = reader.read(timeout, |packet| {
            let record = lines::record(packet, processes);
            // Without a filter, packets that are not IP are shown as well.
            let is_wanted = filter.is_empty() || record.as_ref().is_some_and(|record| filter.matches(record));
            if !is_wanted {
                tally.filtered(packet);
                return ControlFlow::Continue(());
            }
            if *left == Some(0) {
                tally.surplus(packet);
                return ControlFlow::Continue(());
            }
            if let Some(left) = left {
                *left -= 1;
            }
            tally.shown(packet);
            written = sink.write(packet, record.as_ref());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
        if count > 0 {
            sink.flush()?;
        }
        Ok(count)
    }
}
