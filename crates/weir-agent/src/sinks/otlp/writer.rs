//! [`OtlpWriter`]: brings parcels to the collector, as logs, spans and metrics.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};
use weir_flow::Record;

use super::{
    Signal,
    client::{Client, MOST_UNDER_WAY},
    config::Plan,
    envelope::{ENTRY, Envelope},
    flows,
    metrics::Meter,
    sending::{Line, Outcome, Request},
    spans::{self, Chosen, Told},
};
use crate::{
    causes::with_causes,
    journal,
    outlet::{Consumer, Parcel, ParcelId, Patience, Receipt, WriteError},
};

/// Bytes of a request at which nothing more is added. Collectors that are not told otherwise take 4 MiB by gRPC, before
/// compression, and the last entry may be some kilobytes.
const MOST_BYTES: usize = 3 << 20;

/// Longest time for the last metrics, when everything else has ended.
const LAST: Duration = Duration::from_millis(400);

/// Writes OTLP.
pub struct OtlpWriter {
    /// Taken only at the end.
    runtime: Option<Runtime>,
    envelope: Envelope,
    logs: Option<Client>,
    spans: Option<(Client, Told)>,
    metrics: Option<Meter>,
    progress: Option<Progress>,
    /// Spans of the parcels of a group that was rejected. Each is brought once more by itself.
    aside: Vec<(ParcelId, Vec<Chosen>)>,
}

/// How far the present parcels are.
#[derive(Debug, Default)]
struct Progress {
    logs: Line,
    spans: Line,
    /// Records that become spans.
    chosen: Vec<Chosen>,
}

impl OtlpWriter {
    /// Connects to nobody yet: the first batch does.
    pub fn new(plan: &Plan) -> io::Result<Self> {
        Self::with_limits(plan, MOST_BYTES, MOST_UNDER_WAY)
    }

    /// The same, with requests of about so many bytes, and so many of them under way at a time.
    pub(super) fn with_limits(plan: &Plan, most_bytes: usize, most_under_way: usize) -> io::Result<Self> {
        let mut resource = vec![("host.name".to_owned(), host_name())];
        for (name, value) in &plan.resource {
            resource.retain(|(other, _)| other != name);
            resource.push((name.clone(), value.clone()));
        }
        let client = |signal, target: &Option<_>| {
            let target = target.clone();
            target.map(|target| Client::new(signal, target, most_bytes, most_under_way))
        };
        Ok(Self {
            runtime: Some(Builder::new_current_thread().enable_all().build()?),
            envelope: Envelope::new(&resource),
            logs: client(Signal::Logs, &plan.logs),
            spans: client(Signal::Spans, &plan.spans).map(|client| (client, Told::default())),
            metrics: plan.metrics.clone().map(|plan| Meter::new(plan, most_bytes)),
            progress: None,
            aside: Vec::new(),
        })
    }

    /// Begins with parcels, unless they are those of the last attempt. Which spans a parcel has is decided once.
    fn begin(&mut self, parcels: &[Parcel]) -> Progress {
        if let Some(progress) = self.progress.take() {
            return progress;
        }
        let place = parcels.first().and_then(|first| self.aside.iter().position(|(id, _)| *id == first.id));
        let chosen = match (place, &mut self.spans) {
            (Some(place), _) => self.aside.swap_remove(place).1,
            (None, Some((_, told))) => {
                self.aside.clear();
                told.choose(parcels)
            }
            (None, None) => Vec::new(),
        };
        Progress { chosen, ..Progress::default() }
    }

    /// What becomes of parcels decides what becomes of their logs, or of their spans where there are no logs.
    fn rejected<'p>(&self, progress: &'p Progress) -> Option<&'p String> {
        let line = if self.logs.is_some() { &progress.logs } else { &progress.spans };
        line.outcome.refused.as_ref().filter(|_| !line.outcome.has_taken).map(|(_, text)| text)
    }

    /// They are settled, one way or the other.
    fn count(&self, parcels: &[Parcel]) {
        if let Some(meter) = &self.metrics {
            for parcel in parcels {
                meter.add(&parcel.batch);
            }
        }
    }

    /// How many flows were added to the metrics as ones that ended.
    #[cfg(test)]
    pub(super) fn flows_counted(&mut self) -> u64 {
        let rows = self.metrics.as_mut().map(|meter| meter.begin().rows).unwrap_or_default();
        rows.iter().map(|row| row.sums.closed).sum()
    }

    fn bring(
        &mut self,
        parcels: &[Parcel],
        progress: &mut Progress,
        patience: &Patience,
    ) -> Result<(), WriteError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let envelope = &self.envelope;
        if let Some(client) = &mut self.logs {
            let total = parcels.iter().map(|parcel| parcel.batch.records.len()).sum();
            let records =
                || parcels.iter().flat_map(|parcel| parcel.batch.records.iter().zip(repeated(parcel)));
            progress.logs.bring(total, client, runtime, patience, |entries, most_bytes| {
                let append = |out: &mut Vec<u8>, (record, observed_ns): (&Record, u64)| {
                    flows::append(out, ENTRY, record, observed_ns);
                };
                request(envelope, most_bytes, records().skip(entries.start).take(entries.len()), append)
            })?;
        }
        // They are brought with the parcels one by one.
        let is_for_later = parcels.len() > 1 && self.logs.is_some() && self.rejected(progress).is_some();
        if let Some((client, _)) = self.spans.as_mut().filter(|_| !is_for_later) {
            let Progress { chosen, spans, .. } = progress;
            spans.bring(chosen.len(), client, runtime, patience, |entries, most_bytes| {
                let append = |out: &mut Vec<u8>, chosen: &Chosen| {
                    let record = &parcels[chosen.parcel].batch.records[chosen.record];
                    spans::append(out, ENTRY, record, chosen.earlier);
                };
                request(envelope, most_bytes, chosen[entries].iter(), append)
            })?;
        }
        Ok(())
    }
}

impl Consumer for OtlpWriter {
    fn write(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<Receipt, WriteError> {
        let mut progress = self.begin(parcels);
        if let Err(error) = self.bring(parcels, &mut progress, patience) {
            self.progress = Some(progress);
            return Err(error);
        }
        if let Some(text) = self.rejected(&progress).cloned() {
            if let [_] = parcels {
                self.count(parcels);
            } else {
                let of = |index: usize| {
                    let chosen = progress.chosen.iter().filter(move |chosen| chosen.parcel == index);
                    chosen.map(|chosen| Chosen { parcel: 0, ..*chosen }).collect()
                };
                self.aside =
                    parcels.iter().enumerate().map(|(index, parcel)| (parcel.id, of(index))).collect();
            }
            return Err(WriteError::Reject(text.into()));
        }
        self.count(parcels);
        let mut outcome = progress.logs.outcome;
        outcome.add(progress.spans.outcome);
        Ok(Receipt { refused: outcome.refused })
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.metrics.as_ref().map(Meter::is_due_at)
    }

    fn wake(&mut self, patience: &Patience) -> Result<Receipt, WriteError> {
        let (Some(meter), Some(runtime)) = (&mut self.metrics, &self.runtime) else {
            return Ok(Receipt::default());
        };
        let Outcome { refused, .. } = meter.bring(&self.envelope, runtime, patience)?;
        Ok(Receipt { refused })
    }

    fn finish(&mut self) {
        let (Some(meter), Some(runtime)) = (&mut self.metrics, &self.runtime) else { return };
        let patience = Patience::default();
        patience.end_at(Instant::now() + LAST);
        // Differences that did not arrive before go first, as they were.
        let attempts = if meter.has_unfinished() { 2 } else { 1 };
        for _ in 0..attempts {
            if let Err(error) = meter.bring(&self.envelope, runtime, &patience) {
                journal::warn(format_args!("the last sums are not told: {}", with_causes(&error)));
                return;
            }
        }
    }
}

impl Drop for OtlpWriter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name that is being looked up cannot be stopped, and need not be waited for.
            runtime.shutdown_background();
        }
    }
}

/// When a parcel was read, for each of its records.
fn repeated(parcel: &Parcel) -> impl Iterator<Item = u64> {
    std::iter::repeat(parcel.batch.tick.wall.0)
}

/// A request with as many of the entries as are to go into one.
pub(super) fn request<E>(
    envelope: &Envelope,
    most_bytes: usize,
    entries: impl Iterator<Item = E>,
    append: impl Fn(&mut Vec<u8>, E),
) -> Request {
    let mut buffer = Vec::with_capacity(most_bytes + (64 << 10));
    envelope.open(&mut buffer);
    let mut count = 0;
    for entry in entries {
        append(&mut buffer, entry);
        count += 1;
        if buffer.len() >= most_bytes {
            break;
        }
    }
    (envelope.seal(buffer), count)
}

/// The name of this machine.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
