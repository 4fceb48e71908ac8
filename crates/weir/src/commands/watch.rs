//! `weir watch`: live flows, interval by interval.
//!
//! On a terminal the table is refreshed in place, otherwise a block is printed per interval. Interfaces are followed:
//! one that vanishes is reported to the last packet, one that is named and comes back is counted again, and watching
//! goes on even when none is left. At the end the ledger of everything goes to standard error.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Result, anyhow};
use weir_agent::{
    ledger,
    live::{Live, Message, Pattern, Plan, Schedule, Witness},
    units::Grouped,
};
use weir_datapath::{
    features,
    flow::{FlowOptions, Hook},
    interface,
    netns::{Netns, NetnsError},
};
use weir_flow::{Count, Ledger, Record, Tick, filter::Filter};

use crate::{
    cli::{FlowFormat, HookArg, UsageError, WatchArgs},
    clock, filter,
    show::{Printer, Room, TimeOf},
    terminal,
};

/// Most rows of a table where the user asks for no number; the others are summed up.
const MOST_ROWS: usize = 1000;

/// Text of an interval that is written before the interval is complete, while the reading thread has to wait.
const LARGE: usize = 8 << 20;

pub(super) fn run(args: &WatchArgs) -> Result<ExitCode> {
    let filter = filter::parse(args.show.filter())?;
    let printer = Printer::new(&args.show, Some(MOST_ROWS))?;
    if args.promiscuous && args.hook != HookArg::Socket {
        let text = "--promiscuous needs --hook socket: traffic control never sees frames for other stations";
        return Err(UsageError(text.to_owned()).into());
    }
    let (plan, options) = plan(args, &filter)?;
    if let Some(missing) = features::missing_for_counting() {
        return Err(anyhow!(missing));
    }
    let by_blocks =
        args.blocks.map(|blocks| args.interval.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX)));
    let end = [args.duration, by_blocks].into_iter().flatten().min();
    let live = Live::start(plan, options, Schedule { interval: args.interval, end })?;
    Watch::new(live, printer, filter).run()
}

/// What the machine has to say about the arguments.
fn plan(args: &WatchArgs, filter: &Filter) -> Result<(Plan, FlowOptions)> {
    let netns =
        args.netns.as_ref().map(|netns| Netns::open(netns.as_str())).transpose().map_err(|error| {
            if matches!(error, NetnsError::Unknown { .. }) {
                anyhow!(UsageError(error.to_string()))
            } else {
                anyhow!(error)
            }
        })?;
    let place = netns.clone().map_or_else(Netns::current, Ok)?;
    let interfaces = interface::list(&place)?;
    let patterns: Vec<&str> = args.interfaces.iter().map(Pattern::as_str).collect();
    interface::select(&interfaces, &patterns).map_err(|error| UsageError(error.to_string()))?;
    let options = FlowOptions {
        memory_bytes: args.memory,
        interfaces: u32::try_from(interfaces.len()).unwrap_or(u32::MAX),
        hook: match args.hook {
            HookArg::Tc => Hook::Tc,
            HookArg::Socket => Hook::Socket,
        },
        promiscuous: args.promiscuous,
        filter: filter.pushdown(),
        netns: netns.as_ref().and_then(|netns| netns.name().cloned()),
        ..FlowOptions::default()
    };
    Ok((Plan { netns, patterns: args.interfaces.clone(), directions: args.direction.into() }, options))
}

/// The thread that shows.
struct Watch {
    live: Live,
    printer: Printer,
    filter: Filter,
    /// Whether the table is refreshed in place.
    screen: Option<Screen>,
    shown: Count,
    filtered: Count,
    witnesses: Vec<Witness>,
    start: Instant,
    last: Option<Tick>,
    text: String,
}

/// A block of lines at the end of the terminal that is written over again and again.
#[derive(Default)]
struct Screen {
    lines: usize,
    note: Option<String>,
}

impl Watch {
    fn new(live: Live, printer: Printer, filter: Filter) -> Self {
        let is_table = printer.format() == FlowFormat::Table;
        let screen = (is_table && terminal::size().is_some()).then(Screen::default);
        let (shown, filtered) = (Count::default(), Count::default());
        let (witnesses, start, last, text) = (Vec::new(), Instant::now(), None, String::new());
        Self { live, printer, filter, screen, shown, filtered, witnesses, start, last, text }
    }

    fn run(mut self) -> Result<ExitCode> {
        let mut failure = None;
        loop {
            match self.live.attachment().next()? {
                Message::Interval(tick) => self.block(tick)?,
                Message::Note(text) => self.note(text)?,
                Message::Witness(witness) => self.witnesses.push(witness),
                Message::Stop => self.live.attachment().stop(),
                Message::Failed(error) => failure = Some(error),
                Message::Ended(tick) => {
                    if failure.is_none() {
                        self.block(tick)?;
                    }
                    break;
                }
            }
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        io::stderr().write_all(self.summary().as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows everything since the last block.
    fn block(&mut self, tick: Tick) -> Result<()> {
        let length = self.last.map_or_else(|| self.start.elapsed(), |last| tick.monotonic - last.monotonic);
        self.last = Some(tick);
        let now = clock::local_time(tick.wall);
        let time = |_: &Record| now.clone();
        self.text.clear();
        if self.printer.format() == FlowFormat::Table {
            let status = self.status(&now);
            self.text.push_str(&status);
        }
        self.printer.begin(&mut self.text);
        self.take_records(tick, &time)?;
        // Two lines are for the status and a note.
        let lines =
            terminal::size().filter(|_| self.screen.is_some()).map(|(_, lines)| lines.saturating_sub(2));
        let room = Room { length, width: terminal::width(), lines };
        self.printer.end(&room, &time, &mut self.text);
        self.write()
    }

    /// Hands the records of the interval that match the filter to the printer; those that do not are counted.
    fn take_records(&mut self, tick: Tick, time: TimeOf<'_>) -> Result<()> {
        let Self { live, printer, filter, shown, filtered, text, .. } = self;
        let mut written = Ok(());
        live.shared().lock().table.tick_each(tick, &mut |record| {
            let count = record.delta.forward.count() + record.delta.reverse.count();
            if !filter.matches(&record) {
                *filtered += count;
                return;
            }
            *shown += count;
            printer.take(record, time, text);
            if text.len() >= LARGE && written.is_ok() {
                written = io::stdout().write_all(text.as_bytes());
                text.clear();
            }
        });
        written?;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let mut out = io::stdout().lock();
        if let Some(screen) = &mut self.screen {
            if screen.lines > 0 {
                // Up to where the block began; then every line is written over, and what is left below goes.
                write!(out, "\x1b[{}A\r", screen.lines)?;
            }
            let lines: Vec<&str> = screen.note.as_deref().into_iter().chain(self.text.lines()).collect();
            for line in &lines {
                // A line that wraps would be two lines to go up.
                let line: String = line.chars().take(terminal::width()).collect();
                writeln!(out, "{line}\x1b[K")?;
            }
            out.write_all(b"\x1b[J")?;
            screen.lines = lines.len();
        } else {
            out.write_all(self.text.as_bytes())?;
        }
        out.flush()?;
        Ok(())
    }

    /// One line above the table: what is counted, and whether it adds up.
    fn status(&self, now: &str) -> String {
        let (attached, wanted) = self.live.attachment().progress();
        let state = self.live.shared().lock();
        let total = state.books.total();
        let mut status = format!(
            "{now}  attached {attached}/{wanted}  accounted {} of {} packets",
            ledger::accounted(total),
            Grouped(total.seen.packets)
        );
        let folded = ("folded", state.table.folded());
        let is_there = |(_, count): &(&str, Count)| count.packets > 0;
        for (name, count) in ledger::left_out(total).chain([folded].into_iter().filter(is_there)) {
            write!(status, "  {name} {}", Grouped(count.packets)).expect("a string takes any text");
        }
        status.push('\n');
        status
    }

    /// Says something on standard error, or above a table that is refreshed in place.
    fn note(&mut self, text: String) -> Result<()> {
        match &mut self.screen {
            Some(screen) => screen.note = Some(text),
            None => writeln!(io::stderr(), "weir: {text}")?,
        }
        Ok(())
    }

    /// What it all comes to.
    fn summary(&self) -> String {
        let state = self.live.shared().lock();
        let counted = state.books.total();
        let mut ledger = Ledger { flows: self.shown, ..*counted };
        ledger.filtered += self.filtered;
        let mut text = ledger::summary(&ledger);
        let roles: Vec<_> = state.books.roles().collect();
        if roles.len() > 1 {
            // Numbers of different roles are not to be added, so each is said by itself.
            for (role, Ledger { seen, .. }) in roles {
                let (packets, bytes) = (Grouped(seen.packets), Grouped(seen.bytes));
                writeln!(text, "{role}: {packets} packets, {bytes} bytes").expect("a string takes any text");
            }
        }
        let before = self.witnesses.iter().fold(Count::default(), |sum, witness| sum + witness.before);
        if before.packets > 0 {
            let (packets, bytes) = (Grouped(before.packets), Grouped(before.bytes));
            writeln!(
                text,
                "before_attach: {packets} packets, {bytes} bytes, by the interfaces' own counters"
            )
            .expect("a string takes any text");
        }
        let agreements = state.books.agreements(&self.witnesses);
        let asked = agreements.exact + agreements.alarms.len();
        if asked > 0 {
            writeln!(text, "{} of {asked} interface counters that must agree do", agreements.exact)
                .expect("a string takes any text");
        }
        let unbalanced = state.books.unbalanced();
        let unbalanced = (unbalanced > 0).then(|| format!("{unbalanced} ledgers of a point did not balance"));
        for alarm in agreements.alarms.into_iter().chain(unbalanced) {
            writeln!(text, "weir: {alarm}").expect("a string takes any text");
        }
        text
    }
}
