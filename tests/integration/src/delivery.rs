//! What every sink must do, whatever is at the other end: fields, outages, deaths, hanging peers, wrong passwords, the end.
//!
//! A test gives a [`Peer`], a real one, and calls the checks. Records are made here, each with a number of its own, so that
//! what is missing or there twice can be told.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_agent::{
    batch::{Batch, Collected},
    config::{Config, Sources},
    ledger::Pages,
    outlet::Outlet,
    sinks::{self, SinkConfig},
    store::conformance::Sample,
};
use weir_flow::{
    PointId, Record,
    field::{FIELDS, Value},
    filter::Filter,
};

const PATIENCE: Duration = Duration::from_mins(2);

/// The other end of a sink.
pub trait Peer {
    /// The sink for it, as an element of the list `sinks`, without name, spool and batch.
    fn sink(&self) -> String;

    /// What it has: for each record the values of its fields, as text; without those that are absent.
    fn records(&self) -> Vec<BTreeMap<String, String>>;

    /// Ends it as a crash would. What it took stays.
    fn kill(&mut self);

    /// Starts it again where it was.
    fn start_again(&mut self);

    /// Makes it answer nothing, without ending it.
    fn freeze(&mut self);

    /// Lets it go on.
    fn thaw(&mut self);

    /// Whether it tells what it has already, so that nothing is there twice.
    fn is_idempotent(&self) -> bool;

    /// What it shows of a value that it cannot hold exactly.
    fn rounded(&self, value: &Value<'_>) -> String {
        value.to_string()
    }
}

/// A sink and its spool.
pub struct Stage {
    directory: TempDir,
    file: PathBuf,
}

impl Stage {
    /// A sink with a spool of so many bytes, and small batches.
    pub fn new(sink: &str, spool_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let file = directory.path().join("weir.yaml");
        let sink = sink.trim().strip_suffix('}').expect("it is a mapping in braces");
        let spool = directory.path().join("spool");
        let text = format!(
            "sinks:\n- {sink}, name: peer, spool: {{enabled: true, path: {}, size: '{spool_bytes}'}}}}\n",
            spool.display()
        );
        fs::write(&file, text).expect("there is room");
        Self { directory, file }
    }

    /// The configuration of the sink.
    pub fn config(&self) -> SinkConfig {
        sink_of(&self.file)
    }

    /// Starts it.
    pub fn start(&self) -> Outlet {
        sinks::start(&self.config(), &Arc::default()).expect("there are threads")
    }

    /// Runs [`feed`] in a process of its own.
    pub fn feed(&self, from: u64) -> Feeder {
        let mut command = Command::new(program("feed-sink"));
        command.arg(&self.file).arg(from.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it was built with the tests");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Feeder { child, lines }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The first sink of a configuration.
pub fn sink_of(file: &Path) -> SinkConfig {
    let sources = Sources { file: Some(file.to_owned()), options: Vec::new() };
    let config = Config::load(&sources).unwrap_or_else(|error| panic!("{error}"));
    config.sinks.into_iter().next().expect("there is a sink")
}

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.ancestors().nth(2).expect("it lies in target/debug/deps").join(name)
}

/// A process that feeds a sink until it is killed.
pub struct Feeder {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Feeder {
    /// Waits until it says that so many ticks are safe.
    pub fn until_safe(&mut self, tick: u64) {
        for line in &mut self.lines {
            let safe: u64 = line.expect("it is text").parse().expect("it is a number");
            if safe >= tick {
                return;
            }
        }
        panic!("it ended by itself");
    }

    /// Kills it; gives back the last tick of which it could say that it was safe.
    pub fn kill(mut self) -> u64 {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        let said = self.lines.by_ref().map_while(Result::ok).filter_map(|line| line.parse().ok());
        said.last().unwrap_or_default()
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Offers a tick after the other, and says which are safe: delivered, or on disk. For ever.
pub fn feed(file: &Path, from: u64) {
    let outlet = sinks::start(&sink_of(file), &Arc::default()).expect("there are threads");
    for number in from.. {
        outlet.offer(&numbered(number, ROWS));
        until(&outlet, |pages| pages.total().waiting().records == 0);
        println!("{number}");
    }
}

/// Records of one tick of [`feed`].
pub const ROWS: u64 = 20;

/// A batch of so many records whose sockets have the numbers from `tick * 1000` on.
pub fn numbered(tick: u64, rows: u64) -> Arc<Batch> {
    let (time, mut records) = Sample::seeded(tick + 1).tick(tick);
    let mut seed = tick + 1;
    while records.is_empty() {
        seed += 1_000;
        records = Sample::seeded(seed).tick(tick).1;
    }
    let sample = records;
    let record = |number: u64| {
        let mut record = sample[usize::try_from(number).expect("it fits") % sample.len()].clone();
        record.source.owner.cookie = tick * 1_000 + number + 1;
        record
    };
    batch_of((0..rows).map(record).collect(), time)
}

/// A batch of records.
pub fn batch_of(records: Vec<Record>, tick: weir_flow::Tick) -> Arc<Batch> {
    let mut collected = Collected::default();
    for record in records {
        collected.add(record, [PointId(1), PointId(2)]);
    }
    collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true)
}

/// Waits until the account is as wanted.
pub fn until(outlet: &Outlet, is_wanted: impl Fn(&Pages) -> bool) -> Pages {
    let start = Instant::now();
    loop {
        let pages = outlet.account().snapshot();
        if is_wanted(&pages) {
            return pages;
        }
        assert!(start.elapsed() < PATIENCE, "{:?}, {:?}", pages.total(), outlet.state());
        std::thread::yield_now();
    }
}

/// Waits until an attempt has failed; says why.
pub fn until_trouble(outlet: &Outlet) -> String {
    until_trouble_says(outlet, "")
}

/// Waits until an attempt has failed for a reason with these words.
pub fn until_trouble_says(outlet: &Outlet, words: &str) -> String {
    let start = Instant::now();
    loop {
        if let Some(trouble) = outlet.state().trouble.filter(|trouble| trouble.text.contains(words)) {
            return trouble.text;
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", outlet.state());
        std::thread::yield_now();
    }
}

/// Waits until so many records are delivered, or an attempt has failed; then says why.
pub fn until_settled_or_trouble(outlet: &Outlet, records: u64) -> Option<String> {
    let is_settled = |pages: &Pages| pages.total().delivered.records >= records;
    until(outlet, |pages| is_settled(pages) || outlet.state().trouble.is_some());
    outlet.state().trouble.map(|trouble| trouble.text)
}

fn until_delivered(outlet: &Outlet, records: u64) -> Pages {
    until(outlet, |pages| pages.total().delivered.records + pages.earlier().delivered.records >= records)
}

fn end(outlet: &Outlet) {
    let deadline = Instant::now() + PATIENCE;
    outlet.close(deadline);
    outlet.wait(deadline);
}

/// Asserts that the peer has every record of these ticks, and none twice if it can tell.
fn assert_has(peer: &dyn Peer, ticks: impl Iterator<Item = u64>, rows: u64) {
    let wanted: Vec<u64> =
        ticks.flat_map(|tick| (0..rows).map(move |number| tick * 1_000 + number + 1)).collect();
    let start = Instant::now();
    let counts = loop {
        // Reading takes long where the machine is busy; what counts is when it began.
        let is_last = start.elapsed() > PATIENCE / 4;
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for record in peer.records() {
            let number = record["source.socket.cookie"].parse().expect("it is a number");
            *counts.entry(number).or_default() += 1;
        }
        let missing = wanted.iter().filter(|number| !counts.contains_key(number)).count();
        if missing == 0 {
            break counts;
        }
        // A stream may be on its way.
        assert!(!is_last, "{missing} of {} records are missing", wanted.len());
    };
    if peer.is_idempotent() {
        assert!(counts.values().all(|count| *count == 1), "some are there twice");
    }
}

/// Every field of every record arrives, under its name and with its value.
pub fn every_field_arrives(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let outlet = stage.start();
    let mut expected = Vec::new();
    for (tick, records) in Sample::default().ticks(60) {
        for record in &records {
            let fields = FIELDS.iter().map(|field| (field.name.to_owned(), field.value(record)));
            let present = fields.filter(|(_, value)| !value.is_absent());
            expected
                .push(present.map(|(name, value)| (name, peer.rounded(&value))).collect::<BTreeMap<_, _>>());
        }
        outlet.offer(&batch_of(records, tick));
    }
    until_delivered(&outlet, expected.len() as u64);
    let start = Instant::now();
    let mut found = peer.records();
    while found.len() < expected.len() && start.elapsed() < PATIENCE / 4 {
        // A stream may be on its way.
        found = peer.records();
    }
    found.sort();
    expected.sort();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    end(&outlet);
}

/// While the peer is away everything waits in the spool, and arrives when it is back.
pub fn an_outage_loses_nothing(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 100));
    until_delivered(&outlet, 100);
    peer.kill();
    let ticks = 120;
    for tick in 1..ticks {
        outlet.offer(&numbered(tick, 100));
        // A second would pass here; the queue before the disk has room for more than one tick.
        until(&outlet, |pages| pages.total().waiting().records == 0);
    }
    until_trouble(&outlet);
    let state = outlet.state();
    assert!(
        state.spool.as_ref().is_some_and(|spool| spool.bytes > 0 && spool.trouble.is_none()),
        "{state:?}"
    );
    peer.start_again();
    let pages = until_delivered(&outlet, ticks * 100);
    assert_eq!((pages.total().lost().records, pages.total().offered.records), (0, ticks * 100));
    end(&outlet);
    assert_eq!(outlet.state().trouble, None);
    assert_has(peer, 0..ticks, 100);
}

/// The process that delivers is killed again and again: nothing is lost that was on disk, nothing is there twice.
pub fn a_killed_agent_loses_nothing(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let mut next = 0;
    let mut safe = Vec::new();
    for round in 0..6 {
        let mut feeder = stage.feed(next);
        feeder.until_safe(next + 3 + 7 * round);
        let last = feeder.kill().max(next + 3 + 7 * round);
        safe.extend(next..=last);
        // The tick under way may be there or not.
        next = last + 10;
    }
    // There may be nothing left in the spool: what is new comes after whatever is.
    let outlet = stage.start();
    outlet.offer(&numbered(next, ROWS));
    safe.push(next);
    until(&outlet, |pages| pages.total().delivered.records == ROWS && pages.earlier().spooled.records == 0);
    end(&outlet);
    let earlier = outlet.account().snapshot().earlier();
    assert_eq!((earlier.spooled.records, earlier.lost().records), (0, 0), "{:?}", outlet.state());
    assert_has(peer, safe.into_iter(), ROWS);
}

/// The peer is killed while it takes: nothing is lost, nothing is there twice.
pub fn a_killed_peer_loses_nothing(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let outlet = stage.start();
    let mut tick = 0;
    for round in 1..=4 {
        for _ in 0..10 {
            outlet.offer(&numbered(tick, 200));
            tick += 1;
            until(&outlet, |pages| pages.total().waiting().records == 0);
        }
        // Somewhere in the midst of it.
        until_delivered(&outlet, (tick - 10) * 200 + round * 20);
        peer.kill();
        peer.start_again();
    }
    until_delivered(&outlet, tick * 200);
    end(&outlet);
    assert_has(peer, 0..tick, 200);
}

/// A peer that does not answer costs neither those who offer nor other sinks any time.
pub fn a_hanging_peer_stops_nobody(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 50));
    until_delivered(&outlet, 50);
    let lines = stage.directory().join("lines");
    let file = stage.directory().join("other.yaml");
    fs::write(&file, format!("sinks: [{{type: json, file: {}}}]\n", lines.display())).expect("there is room");
    let other = sinks::start(&sink_of(&file), &Arc::default()).expect("there are threads");
    peer.freeze();
    let mut longest = Duration::ZERO;
    for tick in 1..40 {
        let batch = numbered(tick, 50);
        let start = Instant::now();
        outlet.offer(&batch);
        other.offer(&batch);
        longest = longest.max(start.elapsed());
        until_delivered(&other, tick * 50);
    }
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    peer.thaw();
    until_delivered(&outlet, 40 * 50);
    end(&outlet);
    end(&other);
    assert_has(peer, 0..40, 50);
}

/// What waits is delivered before the end; what cannot be is delivered by the next run.
pub fn the_end_loses_nothing(peer: &mut dyn Peer) {
    let stage = Stage::new(&peer.sink(), 64 << 20);
    let outlet = stage.start();
    for tick in 0..20 {
        outlet.offer(&numbered(tick, 50));
    }
    end(&outlet);
    assert_has(peer, 0..20, 50);
    peer.kill();
    let outlet = stage.start();
    for tick in 20..30 {
        outlet.offer(&numbered(tick, 50));
    }
    let start = Instant::now();
    end(&outlet);
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    let page = outlet.account().total();
    assert_eq!((page.spooled.records, page.lost().records), (10 * 50, 0));
    peer.start_again();
    let outlet = stage.start();
    let pages = until_delivered(&outlet, 10 * 50);
    assert_eq!(pages.earlier().offered.records, 10 * 50);
    end(&outlet);
    assert_has(peer, 0..30, 50);
}

/// A sink that cannot get in says why in clear words, loses nothing, and gets in once it can.
pub fn a_refusal_is_told_and_mended(
    peer: &mut dyn Peer,
    words: &str,
    spoil: impl FnOnce(&mut dyn Peer) -> String,
    mend: impl FnOnce(&mut dyn Peer),
) {
    let sink = spoil(peer);
    let stage = Stage::new(&sink, 64 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 50));
    let trouble = until_trouble(&outlet);
    assert!(trouble.contains(words), "{trouble}");
    mend(peer);
    until_delivered(&outlet, 50);
    assert_eq!(outlet.state().trouble, None);
    end(&outlet);
    assert_has(peer, 0..1, 50);
}
