//! SIGHUP: reads the configuration again, puts into effect what can be, and says what cannot.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use signal_hook::{consts::SIGHUP, iterator::Signals};

use crate::{
    causes::with_causes,
    config::{Config, Shown, Sources},
    journal,
    outlet::Outlet,
    pipeline::Pipeline,
    server::Tokens,
    sinks::{self, SinkConfig, prometheus::Exposed},
};

/// Listens for SIGHUP from now on, until the process ends.
pub fn on_signal(mut reload: Reload) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    thread::Builder::new().name("weir-reload".to_owned()).spawn(move || {
        for _ in signals.forever() {
            reload.run();
        }
    })?;
    Ok(())
}

/// What a reload compares and changes.
pub struct Reload {
    /// Where settings come from.
    pub sources: Sources,
    /// What is in effect.
    pub current: Config,
    /// Sinks and filter.
    pub pipeline: Arc<Pipeline>,
    /// The token.
    pub tokens: Arc<Tokens>,
    /// What the server shows of the configuration.
    pub shown: Arc<ArcSwap<Shown>>,
    /// Where a sink for `/metrics` puts its sums.
    pub exposed: Arc<Exposed>,
}

impl Reload {
    fn run(&mut self) {
        let wanted = match Config::load(&self.sources) {
            Ok(wanted) => wanted,
            Err(error) => {
                journal::error(format_args!("reload: nothing was changed: {}", with_causes(&error)));
                return;
            }
        };
        for key in fixed(&self.current, &wanted) {
            journal::warn(format_args!("reload: {key} changes only with a restart"));
        }
        journal::set_level(wanted.log);
        if self.current.filter != wanted.filter {
            self.pipeline.filter.store(Arc::new(wanted.filter.clone()));
            self.pipeline.counted.lock().wanted_filter = Some(wanted.filter.pushdown());
            journal::info("reload: another filter");
        }
        if let Err(error) = self.tokens.read() {
            journal::error(format_args!("reload: the token stays as it was: {}", with_causes(&error)));
        }
        self.change_sinks(&wanted.sinks, wanted.stop_deadline);
        // What cannot be changed stays as it is, so that the next reload says so again.
        let shown = self.current.shown.reloaded(&wanted.shown);
        self.shown.store(Arc::new(shown.clone()));
        let Config { filter, log, stop_deadline, sinks, .. } = wanted;
        self.current = Config { filter, log, stop_deadline, sinks, shown, ..self.current.clone() };
        journal::info("reload: done");
    }

    /// Ends sinks that are gone or different, lets them finish what waits, and starts new ones.
    fn change_sinks(&self, wanted: &[SinkConfig], time: Duration) {
        let current = &self.current.sinks;
        let is_gone = |sink: &&SinkConfig| !wanted.contains(sink);
        let gone: Vec<&str> = current.iter().filter(is_gone).map(|sink| &*sink.name).collect();
        let mut ended: Vec<Outlet> = Vec::new();
        let mut outlets = self.pipeline.outlets();
        let mut place = 0;
        while let Some(outlet) = outlets.get(place) {
            if gone.contains(&&**outlet.name()) {
                ended.push(outlets.remove(place));
            } else {
                place += 1;
            }
        }
        drop(outlets);
        let deadline = Instant::now() + time;
        for outlet in &ended {
            outlet.close(deadline);
        }
        for outlet in &ended {
            outlet.wait(deadline);
            journal::info(format_args!("reload: sink {} ended", outlet.name()));
        }
        for sink in wanted.iter().filter(|sink| !current.contains(sink)) {
            match sinks::start(sink, &self.exposed) {
                Ok(outlet) => {
                    self.pipeline.outlets().push(outlet.late());
                    journal::info(format_args!("reload: sink {} started", sink.name));
                }
                Err(error) => {
                    journal::error(format_args!("reload: cannot start sink {}: {error}", sink.name));
                }
            }
        }
    }
}

/// Keys that differ and need a restart.
fn fixed(current: &Config, wanted: &Config) -> Vec<&'static str> {
    let (old, new) = (&current.counting, &wanted.counting);
    let (old_server, new_server) = (&current.server, &wanted.server);
    [
        ("interfaces", old.interfaces != new.interfaces),
        ("direction", old.directions != new.directions),
        ("hook", old.hook != new.hook),
        ("promiscuous", old.promiscuous != new.promiscuous),
        ("netns", old.netns != new.netns),
        ("interval", old.interval != new.interval),
        ("memory", old.memory != new.memory),
        ("live", current.live != wanted.live),
        ("tcp_quality", current.tcp_quality != wanted.tcp_quality),
        ("drops", current.drops != wanted.drops),
        ("dns", current.dns != wanted.dns),
        ("kubernetes", current.kubernetes != wanted.kubernetes),
        ("store", current.store != wanted.store),
        ("server", old_server != new_server),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
