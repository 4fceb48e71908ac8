//! [`OtlpWriter`]: makes requests of parcels and brings them to the collector.

use std::io;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::{
    Signal,
    answer::Answer,
    client::Client,
    config::Plan,
    envelope::{ENTRY, Envelope},
    flows,
};
use crate::outlet::{Consumer, Parcel, Patience, Receipt, WriteError};

/// Bytes of a request at which nothing more is added. Collectors that are not told otherwise take 4 MiB by gRPC, before
/// compression, and the last entry may be some kilobytes.
const MOST_BYTES: usize = 3 << 20;

/// Bytes of a request that is not made smaller even if it is too large.
const FEWEST_BYTES: usize = 16 << 10;

/// Writes OTLP.
pub struct OtlpWriter {
    /// Taken only at the end.
    runtime: Option<Runtime>,
    envelope: Envelope,
    logs: Option<Client>,
    most_bytes: usize,
    progress: Progress,
}

/// How far the present parcels are.
#[derive(Default)]
struct Progress {
    /// Records whose log records the collector has, or has refused.
    logs: usize,
    /// The request that is being brought, and how many entries it has.
    request: Option<(Bytes, usize)>,
    /// Entries that were refused, and what was said of the last.
    refused: Option<(u64, String)>,
    /// Whether anything was taken.
    has_taken: bool,
}

impl OtlpWriter {
    /// Connects to nobody yet: the first batch does.
    pub fn new(plan: &Plan) -> io::Result<Self> {
        Self::with_most_bytes(plan, MOST_BYTES)
    }

    /// The same, with requests of about so many bytes.
    pub(super) fn with_most_bytes(plan: &Plan, most_bytes: usize) -> io::Result<Self> {
        let mut resource = vec![("host.name".to_owned(), host_name())];
        for (name, value) in &plan.resource {
            resource.retain(|(other, _)| other != name);
            resource.push((name.clone(), value.clone()));
        }
        Ok(Self {
            runtime: Some(Builder::new_current_thread().enable_all().build()?),
            envelope: Envelope::new(&resource),
            logs: plan.logs.clone().map(|target| Client::new(Signal::Logs, target)),
            most_bytes,
            progress: Progress::default(),
        })
    }

    /// Sends the rest of the log records.
    fn send_logs(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<(), WriteError> {
        let (Some(client), Some(runtime)) = (&mut self.logs, &self.runtime) else { return Ok(()) };
        let total: usize = parcels.iter().map(|parcel| parcel.batch.records.len()).sum();
        let progress = &mut self.progress;
        while progress.logs < total {
            let make = || flows_from(parcels, progress.logs, &self.envelope, self.most_bytes);
            let (request, entries) = progress.request.get_or_insert_with(make).clone();
            match client.send(runtime, request, patience) {
                Answer::Taken(refused) => {
                    progress.has_taken = true;
                    progress.note(refused);
                }
                Answer::TooLarge(_) if self.most_bytes > FEWEST_BYTES && entries > 1 => {
                    self.most_bytes /= 2;
                    progress.request = None;
                    continue;
                }
                Answer::TooLarge(error) | Answer::Never(error) => {
                    progress.note(Some((entries as u64, error.to_string())));
                }
                Answer::NotNow(error, delay) => return Err(error.not_now(delay)),
            }
            progress.request = None;
            progress.logs += entries;
        }
        Ok(())
    }
}

impl Progress {
    fn note(&mut self, refused: Option<(u64, String)>) {
        let Some((records, text)) = refused else { return };
        let before = self.refused.take().map_or(0, |(before, _)| before);
        self.refused = Some((before + records, text));
    }
}

impl Consumer for OtlpWriter {
    fn write(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<Receipt, WriteError> {
        self.send_logs(parcels, patience)?;
        let progress = std::mem::take(&mut self.progress);
        match progress.refused {
            Some((_, text)) if !progress.has_taken => Err(WriteError::Reject(text.into())),
            refused => Ok(Receipt { refused }),
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

/// A request with the flows from number `first` on, as many as are to go into one, and how many these are.
fn flows_from(parcels: &[Parcel], first: usize, envelope: &Envelope, most_bytes: usize) -> (Bytes, usize) {
    let mut buffer = Vec::with_capacity(most_bytes + (64 << 10));
    envelope.open(&mut buffer);
    let records = parcels.iter().flat_map(|parcel| {
        let observed_ns = parcel.batch.tick.wall.0;
        parcel.batch.records.iter().map(move |record| (record, observed_ns))
    });
    let mut entries = 0;
    for (record, observed_ns) in records.skip(first) {
        flows::append(&mut buffer, ENTRY, record, observed_ns);
        entries += 1;
        if buffer.len() >= most_bytes {
            break;
        }
    }
    (envelope.seal(buffer), entries)
}

/// The name of this machine.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
