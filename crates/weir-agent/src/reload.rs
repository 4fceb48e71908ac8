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
        let failed = self.change_sinks(&wanted.sinks, wanted.stop_deadline);
        // What cannot be changed stays as it is, so that the next reload says so again.
        let shown = self.current.shown.reloaded(&wanted.shown);
        self.shown.store(Arc::new(shown.clone()));
        let Config { filter, log, stop_deadline, sinks, .. } = wanted;
        let sinks = in_effect(sinks, &failed);
        self.current = Config { filter, log, stop_deadline, sinks, shown, ..self.current.clone() };
        journal::info("reload: done");
    }

    /// Ends sinks that are gone or different, lets them finish what waits, and starts new ones. Gives back the names of those
    /// that could not be started.
    fn change_sinks(&self, wanted: &[SinkConfig], time: Duration) -> Vec<Arc<str>> {
        let current = &self.current.sinks;
        let is_gone = |sink: &&SinkConfig| !wanted.contains(sink);
        let gone: Vec<&str> = current.iter().filter(is_gone).map(|sink| &*sink.name).collect();
        let mut ended: Vec<Arc<Outlet>> = Vec::new();
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
        let mut failed = Vec::new();
        for sink in wanted.iter().filter(|sink| !current.contains(sink)) {
            match sinks::start(sink, &self.exposed) {
                Ok(outlet) => {
                    self.pipeline.outlets().push(Arc::new(outlet.late()));
                    journal::info(format_args!("reload: sink {} started", sink.name));
                }
                Err(error) => {
                    let name = &sink.name;
                    journal::error(format_args!(
                        "reload: cannot start sink {name}: {error}: the next reload tries it again"
                    ));
                    failed.push(Arc::clone(name));
                }
            }
        }
        failed
    }
}

/// The sinks that are there: without those that failed, so that the next reload finds them missing and tries them again.
fn in_effect(wanted: Vec<SinkConfig>, failed: &[Arc<str>]) -> Vec<SinkConfig> {
    wanted.into_iter().filter(|sink| !failed.contains(&sink.name)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_could_not_be_started_is_missing_for_the_next_reload() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weir.yaml");
        std::fs::write(&file, "sinks: [{type: json}, {type: json, name: other, tcp: '127.0.0.1:1'}]\n")
            .unwrap();
        let wanted = Config::load(&Sources { file: Some(file), options: Vec::new() }).unwrap().sinks;
        let current = in_effect(wanted.clone(), &["other".into()]);
        let missing: Vec<_> = wanted.iter().filter(|sink| !current.contains(sink)).collect();
        assert_eq!(missing.len(), 1);
        assert_eq!(&*missing[0].name, "other");
        assert_eq!(in_effect(wanted.clone(), &[]), wanted);
    }
}
