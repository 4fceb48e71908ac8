//! [`run`]: the life of the daemon, from a configuration to the last record.
//!
//! The order matters. What can fail without touching the machine comes first: secrets, addresses, certificates. Then the
//! programs are loaded and attached. At the end everything is detached before queues are flushed, so that a hanging sink
//! keeps nothing attached.

use std::{fmt::Write as _, io, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::Router;
use thiserror::Error;
use weir_datapath::{
    dns::DnsReader,
    drops::Drops,
    features::{self, MissingPrivilege},
    flow::FlowOptions,
    interface::{self, NetlinkError},
    netns::{Netns, NetnsError},
};
use weir_flow::filter::Filter;

use crate::{
    causes::with_causes,
    config::{Config, ConfigError, DnsConfig, SecretError, Sources},
    dns::DnsWatch,
    enrich::DnsEnricher,
    history::HistoryWriter,
    journal,
    kubernetes::ConnectError,
    ledger::{self, Loss},
    live::{Live, LiveError, Pattern, Plan, Schedule, Witness},
    naming::Naming,
    outlet::{Batching, Outlet, OutletConfig},
    pipeline::Pipeline,
    reload::{self, Reload},
    server::{AnswerSources, Answers, ServeError, Server, Tokens, query},
    sinks::{self, prometheus::Exposed},
    store::{EmbeddedStore, StoreError},
    view::{VIEW_QUEUE, View, Viewer},
};

/// Interfaces for which there is always room, besides twice as many as there are at the start.
const ROOM_FOR_INTERFACES: usize = 250;

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum AgentError {
    /// There is no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A capability is missing.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// The token cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The server cannot start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The network namespace does not exist or cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Interfaces cannot be listed.
    #[error(transparent)]
    Interfaces(#[from] NetlinkError),
    /// There is no way to the cluster, though one is configured.
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    /// The store cannot be opened.
    #[error("cannot open the store: set store.path to another directory, or store.enabled to false")]
    Store(#[from] StoreError),
    /// Counting cannot start or go on.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Runs until a signal asks for the end; gives back the ledger in words.
pub fn run(sources: Sources) -> Result<String, AgentError> {
    let config = Config::load(&sources)?;
    journal::set_level(config.log);
    if let Some(missing) = features::missing_for_counting() {
        return Err(missing.into());
    }
    let tokens = Arc::new(Tokens::open(config.server.token.clone())?);
    let mut server = Server::bind(&config.server)?;
    let store = config.store.as_ref().map(|settings| EmbeddedStore::open(&settings.path, settings.config));
    let store = store.transpose()?.map(Arc::new);

    let Naming { mut enrichers, kubernetes, containers: _looking } =
        Naming::start(&config, server.runtime())?;
    let (plan, options) = plan(&config)?;
    let schedule = Schedule { interval: config.counting.interval, end: None };
    let mut live = Live::start(plan, options, schedule)?;
    let dns = live.take_dns().and_then(|reader| watch_dns(reader, &config.dns));
    if let Some(watch) = &dns {
        enrichers.push(Box::new(DnsEnricher::new(Arc::clone(watch))));
    }
    let view = View::new(config.live.clone());
    let exposed = Arc::<Exposed>::default();
    let outlets = outlets(&config, &view, store.as_ref(), &exposed).map_err(AgentError::Thread)?;
    let pipeline = Arc::new(Pipeline::new(&live, enrichers, config.filter.clone(), outlets));

    let drops = if config.drops { count_drops() } else { None };
    let shown = Arc::new(ArcSwap::from_pointee(config.shown.clone()));
    let parts = AnswerSources { pipeline: Arc::clone(&pipeline), view, kubernetes, drops, dns };
    let answers =
        Answers::new(parts, Arc::clone(&shown), server.is_ending()).with_edges(Arc::clone(&exposed));
    let history = store.map_or_else(Router::new, |store| query::routes(store));
    server.start(answers, &tokens, history).map_err(AgentError::Thread)?;
    let stop_deadline = config.stop_deadline;
    let reload = Reload { sources, current: config, pipeline: Arc::clone(&pipeline), tokens, shown, exposed };
    reload::on_signal(reload).map_err(AgentError::Thread)?;

    let outcome = pipeline.run(&live);
    // Detaches, if that is not done.
    drop(live);
    journal::info("detached; flushing what waits");
    let start = Instant::now();
    pipeline.close(stop_deadline);
    journal::debug(format_args!("flushed in {:?}", start.elapsed()));
    server.stop();
    Ok(summary(&pipeline, &outcome?))
}

/// Counts packets that the kernel drops, where it says why.
fn count_drops() -> Option<Drops> {
    Drops::attach()
        .inspect_err(|error| {
            journal::warn(format_args!("no counts of dropped packets: {}", with_causes(error)));
        })
        .ok()
}

/// Reads the DNS messages that the kernel hands over.
fn watch_dns(reader: DnsReader, config: &DnsConfig) -> Option<Arc<DnsWatch>> {
    DnsWatch::start(reader, config.ports.clone())
        .inspect_err(|error| journal::warn(format_args!("no DNS: {}", with_causes(error))))
        .ok()
        .map(Arc::new)
}

/// The ways to all consumers: live view, store, sinks.
fn outlets(
    config: &Config,
    view: &Arc<View>,
    store: Option<&Arc<EmbeddedStore>>,
    exposed: &Arc<Exposed>,
) -> io::Result<Vec<Outlet>> {
    let viewer = Viewer::new(Arc::clone(view));
    let plain = |name: &str, most_records| OutletConfig {
        name: name.into(),
        most_records,
        filter: Filter::default(),
        batching: Batching::SINGLE,
        spool: None,
    };
    let mut outlets = vec![Outlet::start(plain("live", VIEW_QUEUE), viewer)?];
    if let Some((store, settings)) = store.zip(config.store.as_ref()) {
        let writer = HistoryWriter::new(Arc::clone(store));
        outlets.push(Outlet::start(plain("store", settings.queue), writer)?);
    }
    for sink in &config.sinks {
        outlets.push(sinks::start(sink, exposed)?);
    }
    Ok(outlets)
}

/// What the machine has to say about what is to be counted.
fn plan(config: &Config) -> Result<(Plan, FlowOptions), AgentError> {
    let counting = &config.counting;
    let netns = counting.netns.as_deref().map(Netns::open).transpose()?;
    let place = netns.clone().map_or_else(Netns::current, Ok)?;
    let interfaces = interface::list(&place)?;
    let is_missing =
        |pattern: &&Pattern| !interfaces.iter().any(|interface| pattern.matches(&interface.name));
    for pattern in counting.interfaces.iter().filter(is_missing) {
        // A daemon may well be there before its interfaces.
        journal::warn(format_args!(
            "there is no interface {} yet: it is counted when it comes",
            pattern.as_str()
        ));
    }
    let room = (2 * interfaces.len()).max(ROOM_FOR_INTERFACES);
    let options = FlowOptions {
        memory_bytes: counting.memory,
        interfaces: u32::try_from(room).unwrap_or(u32::MAX),
        hook: counting.hook,
        promiscuous: counting.promiscuous,
        filter: config.filter.pushdown(),
        dns_ports: config.dns.ports.clone(),
        netns: netns.as_ref().and_then(|netns| netns.name().cloned()),
        ..FlowOptions::default()
    };
    let (patterns, directions) = (counting.interfaces.clone(), counting.directions);
    Ok((Plan { netns, patterns, directions }, options))
}

/// What it all comes to, with a line for each consumer.
fn summary(pipeline: &Pipeline, witnesses: &[Witness]) -> String {
    let state = pipeline.counted.lock();
    let mut text = ledger::summary(state.books.total());
    let agreements = state.books.agreements(witnesses);
    for alarm in agreements.alarms {
        writeln!(text, "{alarm}").expect("a string takes any text");
    }
    drop(state);
    for outlet in pipeline.outlets().iter() {
        let page = outlet.account().total();
        write!(
            text,
            "{}: {} of {} records delivered",
            outlet.name(),
            page.delivered.records,
            page.offered.records
        )
        .expect("a string takes any text");
        let losses = Loss::ALL.map(|loss| (loss.as_str(), page.dropped[loss as usize]));
        let others = [("filtered", page.filtered), ("spooled", page.spooled)];
        for (name, tally) in others.into_iter().chain(losses) {
            if tally.records > 0 {
                write!(text, "; {} {name}", tally.records).expect("a string takes any text");
            }
        }
        text.push('\n');
    }
    text
}
