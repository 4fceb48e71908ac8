//! From what is written to what is meant: [`Document`] becomes [`Config`].

use std::{env, time::Duration};

use weir_datapath::flow::{Directions, Hook};
use weir_flow::filter::Filter;

use super::{
    At, Config, CountingConfig, DirectionDocument, Document, HookDocument, LevelDocument, LiveConfig,
    LiveDocument, Problems, Shown,
};
use crate::{
    journal::Level,
    live::Pattern,
    server,
    sinks::{self, Surroundings},
};

/// Judges everything. `None` goes with problems; problems may also come with a value.
pub(super) fn validate(document: Document, problems: &mut Problems) -> Option<Config> {
    let top = At::default();
    let shown = Shown::of(&document);
    let counting = counting(&document, problems);
    let filter = filter(&document.filter, &top.key("filter"), problems);
    let live = live(&document.live, &top.key("live"), problems);
    let (tcp_quality, drops, kubernetes) = (document.tcp_quality, document.drops, document.kubernetes);
    let dns = document.dns.validate(&top.key("dns"), problems);
    let store = document.store.validate(&top.key("store"), problems);
    let server = server::validate(document.server, &top.key("server"), problems);
    let variables = |name: &str| env::var(name).ok();
    let node = kubernetes.filter.this_node(&variables);
    let surroundings = Surroundings { state: &document.store.path, variables: &variables, node };
    let sinks = sinks::validate(&document.sinks, &surroundings, &top.key("sinks"), problems);
    let (least, most) = (Duration::from_millis(100), Duration::from_mins(5));
    let stop_deadline = document.stop_deadline.within(least, most, &top.key("stop_deadline"), problems);
    let log = match document.log {
        LevelDocument::Error => Level::Error,
        LevelDocument::Warn => Level::Warn,
        LevelDocument::Info => Level::Info,
        LevelDocument::Debug => Level::Debug,
    };
    Some(Config {
        counting: counting?,
        filter: filter?,
        log,
        stop_deadline,
        live,
        tcp_quality,
        drops,
        dns,
        kubernetes,
        store,
        server,
        sinks,
        shown,
    })
}

fn counting(document: &Document, problems: &mut Problems) -> Option<CountingConfig> {
    let top = At::default();
    let interfaces: Vec<Option<Pattern>> = document
        .interfaces
        .iter()
        .enumerate()
        .map(|(index, name)| problems.take(&top.key("interfaces").index(index), name.parse()))
        .collect();
    let hook = match document.hook {
        HookDocument::Tc => Hook::Tc,
        HookDocument::Socket => Hook::Socket,
    };
    if document.promiscuous && hook == Hook::Tc {
        let text = "needs `hook: socket`: traffic control never sees frames for other stations";
        problems.add(&top.key("promiscuous"), text);
    }
    let netns = document.netns.clone();
    if netns.as_deref().is_some_and(|name| name.is_empty() || name.contains('/')) {
        let text = "must be the name of a namespace (see `ip netns`) or the number of a process";
        problems.add(&top.key("netns"), text);
    }
    let (shortest, longest) = (Duration::from_millis(100), Duration::from_mins(1));
    let interval = document.interval.within(shortest, longest, &top.key("interval"), problems);
    let memory = document.memory.within(8 << 20, 64 << 30, &top.key("memory"), problems);
    Some(CountingConfig {
        interfaces: interfaces.into_iter().collect::<Option<_>>()?,
        directions: match document.direction {
            DirectionDocument::Ingress => Directions::Ingress,
            DirectionDocument::Egress => Directions::Egress,
            DirectionDocument::Both => Directions::Both,
        },
        hook,
        promiscuous: document.promiscuous,
        netns,
        interval,
        memory,
    })
}

fn live(document: &LiveDocument, at: &At, problems: &mut Problems) -> LiveConfig {
    let (shortest, longest) = (Duration::from_secs(1), Duration::from_hours(1));
    let memory = document.memory.within(1 << 20, 1 << 30, &at.key("memory"), problems);
    LiveConfig {
        rows: document.rows,
        keep: document.keep.within(shortest, longest, &at.key("keep"), problems),
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
    }
}

/// Reads a filter. The position of an error is told by its words.
pub(crate) fn filter(text: &str, at: &At, problems: &mut Problems) -> Option<Filter> {
    problems.take(at, Filter::parse(text))
}
