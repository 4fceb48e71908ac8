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
use crate::outlet::{Consumer, Parcel, ParcelId, Patience, Receipt, WriteError};

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
    /// The last parcels that were added to the metrics and looked through for spans.
    known: Vec<ParcelId>,
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
            known: Vec::new(),
        })
    }

    /// Begins with parcels, unless they are those of the last attempt. Parcels that are brought once more, each by itself,
    /// were counted before.
    fn begin(&mut self, parcels: &[Parcel]) -> Progress {
        if let Some(progress) = self.progress.take() {
            return progress;
        }
        let is_new = !parcels.iter().any(|parcel| self.known.contains(&parcel.id));
        let mut progress = Progress::default();
        if is_new {
            self.known = parcels.iter().map(|parcel| parcel.id).collect();
            if let Some((_, told)) = &mut self.spans {
                progress.chosen = told.choose(parcels);
            }
            if let Some(meter) = &self.metrics {
                for parcel in parcels {
                    meter.add(&parcel.batch);
                }
            }
        }
        progress
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
        if let Some((client, _)) = &mut self.spans {
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
        let mut outcome = progress.logs.outcome;
        outcome.add(progress.spans.outcome);
        if let (Some((_, text)), false) = (&outcome.refused, outcome.has_taken) {
            return Err(WriteError::Reject(text.clone().into()));
        }
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
        // Whoever is away now has been told of.
        meter.bring(&self.envelope, runtime, &patience).ok();
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
