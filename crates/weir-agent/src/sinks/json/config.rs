//! Where the lines go.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{At, Problems, SizeText},
    outlet::Batching,
    sinks::{Shared, SpoolDocument},
};

/// Lines of JSON, one flow each, to standard output, or to one of `file`, `unix` and `tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Document {
    /// Name in logs, metrics and the ledger; by default the type.
    pub name: Option<String>,
    /// Only flows that match this filter.
    pub filter: String,
    /// Most flows that wait for this sink in memory. When more come, the oldest are dropped and counted, unless they are
    /// in the spool.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: usize,
    /// Where flows wait on disk, across restarts. On unless said otherwise with `tcp`, and off without.
    pub spool: SpoolDocument,
    /// File to append to. It may be a FIFO.
    pub file: Option<PathBuf>,
    /// Size at which the file is renamed to `FILE.1` and begun anew.
    pub rotate_size: SizeText,
    /// Renamed files to keep: `FILE.1` is the youngest.
    #[schemars(range(max = 1000))]
    pub rotate_keep: u32,
    /// Unix stream socket to connect to.
    pub unix: Option<PathBuf>,
    /// Host and port to connect to by TCP, such as `collector:5170`.
    pub tcp: Option<String>,
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// To standard output.
    Stdout,
    /// To a file.
    File {
        /// Which.
        path: PathBuf,
        /// Bytes at which it is renamed.
        rotate_size: u64,
        /// Renamed files that stay.
        rotate_keep: u32,
    },
    /// To a unix stream socket.
    Unix(PathBuf),
    /// To a TCP socket, `host:port`.
    Tcp(String),
}

impl Default for Document {
    fn default() -> Self {
        Self {
            name: None,
            filter: String::new(),
            queue: 30_000,
            spool: SpoolDocument::default(),
            file: None,
            rotate_size: "64MiB".into(),
            rotate_keep: 3,
            unix: None,
            tcp: None,
        }
    }
}

impl Document {
    /// The part that all sinks share.
    pub(in crate::sinks) fn shared(&self, plan: &Plan) -> Shared<'_> {
        Shared {
            kind: "json",
            name: self.name.as_deref(),
            filter: &self.filter,
            queue: self.queue,
            // A stream has no use for waiting; a file is rotated between batches.
            batching: Batching::SINGLE,
            spool: Some(&self.spool),
            is_remote: matches!(plan, Plan::Tcp(_)),
        }
    }

    /// Judges everything but the parts that all sinks share.
    pub(in crate::sinks) fn validate(&self, at: &At, problems: &mut Problems) -> Plan {
        let named = [self.file.is_some(), self.unix.is_some(), self.tcp.is_some()];
        if named.iter().filter(|is_named| **is_named).count() > 1 {
            problems.add(at, "has several destinations: keep one of `file`, `unix` and `tcp`");
        }
        let rotate_size = self.rotate_size.within(4096, 1 << 40, &at.key("rotate_size"), problems);
        if let Some(path) = &self.file {
            if path.file_name().is_none() {
                problems.add(&at.key("file"), "is no name of a file");
            }
            Plan::File { path: path.clone(), rotate_size, rotate_keep: self.rotate_keep }
        } else if let Some(path) = &self.unix {
            Plan::Unix(path.clone())
        } else if let Some(peer) = &self.tcp {
            let has_port = peer.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if !has_port {
                problems.add(&at.key("tcp"), format!("`{peer}` has no host and port, as in collector:5170"));
            }
            Plan::Tcp(peer.clone())
        } else {
            Plan::Stdout
        }
    }
}
