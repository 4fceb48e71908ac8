//! `weir replay`: the flows of a capture file, through the parser and the aggregation that live traffic goes through.
//!
//! The capture's own timestamps are the clock. A conversation is one record however long it pauses; only a close
//! followed by a new SYN makes two of it. Where the capture does not say which way a packet went, both ways count as
//! the two directions of one interface. What was left out is named on standard error, with the sum of everything.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Stdout, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use weir_agent::{ledger, signals::Stop};
use weir_flow::{
    Count, Direction, Emit, FlowTable, Ledger, Monotonic, Observation, Point, PointId, Record, Role,
    SocketOwner, TableConfig, Tick, Traffic, Wall, filter::Filter,
};
use weir_packet::{Headers, Parsed};

use crate::{
    capture::{Capture, CaptureError, CaptureInterface, Frame, LinkType},
    cli::ReplayArgs,
    clock, filter,
    progress::Progress,
    show::{Printer, Room},
    terminal,
};

/// How often flows that are over are cleared out, in time of the capture. Late packets within it join their flow.
const TICK_NS: u64 = 60_000_000_000;

/// Frames between two looks at the clock and for signals.
const FRAMES_PER_LOOK: u64 = 4096;

/// Records that are put in order of their first packets before they are printed.
const SORTED_TOGETHER: usize = 1 << 16;

/// No flow ends because it is silent.
const NEVER: Duration = Duration::MAX;

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let filter = filter::parse(args.show.filter())?;
    let output = Output::new(Printer::new(&args.show, None)?, filter);
    let stop = Stop::on_signals()?;
    let name = args.file.display();
    let (source, length): (Box<dyn Read>, _) = if args.file.as_os_str() == "-" {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(&args.file).with_context(|| format!("cannot open {name}"))?;
        let metadata = file.metadata().with_context(|| format!("cannot open {name}"))?;
        if metadata.is_dir() {
            bail!("cannot read {name}: it is a directory");
        }
        let length = metadata.is_file().then_some(metadata.len());
        (Box::new(file), length)
    };
    let mut capture = Capture::open(source).with_context(|| format!("cannot read {name}"))?;
    let memory_bytes = usize::try_from(args.memory).unwrap_or(usize::MAX);
    Replay::new(memory_bytes, output).run(&mut capture, &stop, Progress::new(length))
}

/// A capture on its way into records.
struct Replay {
    table: FlowTable,
    places: Vec<Option<Place>>,
    ledger: Ledger,
    packets: u64,
    latest_ns: u64,
    next_tick_ns: u64,
    output: Output,
}

/// An interface of the capture.
struct Place {
    link: LinkType,
    ingress: Arc<Point>,
    /// Whether the capture told of any frame which way it went.
    knows_directions: bool,
}

impl Replay {
    fn new(memory_bytes: usize, output: Output) -> Self {
        let config = TableConfig {
            memory_bytes,
            tcp_idle: NEVER,
            other_idle: NEVER,
            active: NEVER,
            emit: Emit::EndAndActive,
            is_deduplicated: false,
        };
        Self {
            table: FlowTable::new(config),
            places: Vec::new(),
            ledger: Ledger::default(),
            packets: 0,
            latest_ns: 0,
            next_tick_ns: 0,
            output,
        }
    }

    /// Reads the capture to its end, or as far as it can be read, and shows what was read in any case.
    fn run<R: Read>(
        mut self,
        capture: &mut Capture<R>,
        stop: &Stop,
        mut progress: Progress,
    ) -> Result<ExitCode> {
        let outcome = self.read(capture, stop, &mut progress);
        progress.clear();
        let end = tick_at(self.latest_ns);
        // Two ticks let flows that were closed end as closed; the others end because the capture does.
        for _ in 0..2 {
            self.clear_out(end)?;
        }
        for record in self.table.finish(end).records {
            self.output.take(record, &self.places)?;
        }
        self.output.finish()?;
        self.ledger.flows = self.output.shown;
        self.ledger.filtered = self.output.filtered;
        io::stderr().write_all(ledger::summary(&self.ledger).as_bytes())?;
        outcome?;
        Ok(ExitCode::SUCCESS)
    }

    fn read<R: Read>(
        &mut self,
        capture: &mut Capture<R>,
        stop: &Stop,
        progress: &mut Progress,
    ) -> Result<()> {
        loop {
            if self.packets.is_multiple_of(FRAMES_PER_LOOK) {
                if stop.is_asked() {
                    bail!("interrupted after {} packets", self.packets);
                }
                progress.show(capture.offset(), self.packets);
            }
            match capture.next_frame() {
                Ok(Some((frame, interface))) => self.add(&frame, interface)?,
                Ok(None) => return Ok(()),
                Err(error @ (CaptureError::Cut { .. } | CaptureError::Damaged { .. })) => {
                    bail!("{error}; {} packets were read", self.packets)
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn add(&mut self, frame: &Frame<'_>, interface: &CaptureInterface) -> Result<()> {
        self.tick(frame.time_ns)?;
        let place = place(&mut self.places, &mut self.table, frame.interface, interface)?;
        self.packets += 1;
        let count = Count { packets: 1, bytes: u64::from(frame.original_length) };
        self.ledger.seen += count;
        self.ledger.skbs += count.packets;
        self.ledger.skb_bytes += count.bytes;
        let (parsed, direction) = place.link.parse(frame);
        match parsed {
            Parsed::Ip(headers) => {
                place.knows_directions |= direction.is_some();
                let direction = direction.unwrap_or_else(|| assumed_direction(&headers));
                let point = point_id(frame.interface, direction);
                self.table.observe(&observation(frame, &headers, point));
            }
            Parsed::NonIp { .. } => self.ledger.non_ip += count,
            Parsed::Malformed => self.ledger.parse_error += count,
        }
        Ok(())
    }

    /// Lets the time of the capture pass. Frames may be out of order; time never goes back.
    fn tick(&mut self, time_ns: u64) -> Result<()> {
        if self.packets > 0 && time_ns <= self.latest_ns {
            return Ok(());
        }
        // The first tick is before the first packet, so that the table knows that it sees all from the beginning.
        let tick = if self.packets == 0 { time_ns.saturating_sub(1) } else { time_ns };
        self.latest_ns = time_ns;
        if time_ns < self.next_tick_ns {
            return Ok(());
        }
        self.next_tick_ns = time_ns.saturating_add(TICK_NS);
        self.clear_out(tick_at(tick))
    }

    /// Takes the flows that are over out of the table.
    fn clear_out(&mut self, tick: Tick) -> Result<()> {
        let (places, output) = (&self.places, &mut self.output);
        let mut result = Ok(());
        self.table.tick_each(tick, &mut |record| {
            if result.is_ok() {
                result = output.take(record, places);
            }
        });
        result
    }
}

/// The interface with this number, made known to the table when its first frame comes.
fn place<'p>(
    places: &'p mut Vec<Option<Place>>,
    table: &mut FlowTable,
    number: usize,
    interface: &CaptureInterface,
) -> Result<&'p mut Place> {
    if places.len() <= number {
        places.resize_with(number + 1, || None);
    }
    if places[number].is_none() {
        let Some(link) = LinkType::from_number(interface.link_type) else {
            let (name, number) = (&interface.name, interface.link_type);
            let kind = LinkType::name_of_number(number);
            bail!(
                "cannot read frames of {name}: link type {number} ({kind}) is none of Ethernet, raw IP, Linux cooked, null"
            );
        };
        let [ingress, egress] = Direction::ALL.map(|direction| {
            Arc::new(Point {
                id: point_id(number, direction),
                netns: None,
                ifindex: u32::try_from(number).unwrap_or(u32::MAX),
                interface: interface.name.as_str().into(),
                direction,
                role: Role::Other,
            })
        });
        table.set_point(Arc::clone(&ingress));
        table.set_point(egress);
        places[number] = Some(Place { link, ingress, knows_directions: false });
    }
    places[number].as_mut().context("a place was just made")
}

fn point_id(interface: usize, direction: Direction) -> PointId {
    let number = u32::try_from(interface).unwrap_or(u32::MAX >> 1);
    PointId(number << 1 | u32::from(direction == Direction::Egress))
}

/// Where the capture does not say which way a packet went, one of two opposite tuples counts as received and the
/// other as sent, so that both are the directions of one flow.
fn assumed_direction(headers: &Headers) -> Direction {
    if headers.tuple <= headers.tuple.reversed() { Direction::Ingress } else { Direction::Egress }
}

fn observation(frame: &Frame<'_>, headers: &Headers, point: PointId) -> Observation {
    const FIN: u16 = 0x01;
    const SYN: u16 = 0x02;
    const RST: u16 = 0x04;
    const ACK: u16 = 0x10;
    let flags = headers.tcp_flags;
    Observation {
        tuple: headers.tuple,
        point,
        traffic: Traffic {
            bytes: u64::from(frame.original_length),
            packets: 1,
            skbs: 1,
            skb_bytes: u64::from(frame.original_length),
            last_length: frame.original_length,
            tcp_flags: flags,
            last_tcp_flags: flags,
            syn: u32::from(flags & (SYN | ACK) == SYN),
            fin_rst: u32::from(flags & (FIN | RST) != 0),
            dscp: headers.dscp,
            ttl: headers.ttl,
        },
        first: Monotonic(frame.time_ns),
        last: Monotonic(frame.time_ns),
        owner: SocketOwner::default(),
    }
}

fn tick_at(time_ns: u64) -> Tick {
    Tick { monotonic: Monotonic(time_ns), wall: Wall(time_ns) }
}

/// Where finished records go.
struct Output {
    printer: Printer,
    filter: Filter,
    kept: Vec<Record>,
    out: BufWriter<Stdout>,
    text: String,
    /// First and last packet.
    span: (Monotonic, Monotonic),
    shown: Count,
    filtered: Count,
}

impl Output {
    fn new(mut printer: Printer, filter: Filter) -> Self {
        let (out, kept) = (BufWriter::new(io::stdout()), Vec::new());
        let (shown, filtered) = (Count::default(), Count::default());
        let span = (Monotonic(u64::MAX), Monotonic(0));
        let mut text = String::new();
        printer.begin(&mut text);
        Self { printer, filter, kept, out, text, span, shown, filtered }
    }

    fn take(&mut self, mut record: Record, places: &[Option<Place>]) -> Result<()> {
        let place = places.get(record.point.ifindex as usize).and_then(Option::as_ref);
        if let Some(place) = place.filter(|place| !place.knows_directions) {
            record.point = Arc::clone(&place.ingress);
        }
        // A record of a capture stands for the whole flow.
        record.delta = record.total;
        let count = record.total.forward.count() + record.total.reverse.count();
        if !self.filter.matches(&record) {
            self.filtered += count;
            return Ok(());
        }
        self.shown += count;
        self.kept.push(record);
        if self.kept.len() >= SORTED_TOGETHER { self.print() } else { Ok(()) }
    }

    /// Hands what was kept to the printer, the oldest first.
    fn print(&mut self) -> Result<()> {
        self.kept.sort_by_key(|record| record.first);
        for record in self.kept.drain(..) {
            self.span.0 = self.span.0.min(record.first);
            self.span.1 = self.span.1.max(record.last);
            self.printer.take(record, &time, &mut self.text);
        }
        self.write()
    }

    fn finish(&mut self) -> Result<()> {
        self.print()?;
        // Rates of a capture of one packet would be beyond all measure.
        let length = (self.span.1 - self.span.0).max(Duration::from_secs(1));
        let room = Room { length, width: terminal::width(), lines: None };
        self.printer.end(&room, &time, &mut self.text);
        self.write()?;
        self.out.flush()?;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}

/// The log shows when a flow was over.
fn time(record: &Record) -> String {
    clock::local_time(record.end)
}
