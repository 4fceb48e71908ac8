//! [`Audit`]: a file that says who tapped what, why, when and for how long. One line of JSON when a tap begins, one when it ends.
//!
//! What cannot be noted is not done: a tap that cannot write its first line does not begin.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process,
};

use jiff::Timestamp;
use weir_flow::Wall;

use super::{Order, Summary};
use crate::private_file;

/// Where it is if nobody says.
pub const DEFAULT_AUDIT: &str = "/var/log/weir/tap.log";

/// Why nothing can be noted.
#[derive(Debug, thiserror::Error)]
#[error("cannot note the tap in {}: without that there is none; --audit names another file", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The file.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
}

impl Audit {
    /// Opens the file for adding, and makes it and its directory where they are missing. Others cannot read either. A link, or
    /// a file of somebody else, is not written.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let file = private_file::append(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// A tap begins.
    pub fn begin(&mut self, order: &Order, output: &str, now: Wall) -> Result<(), AuditError> {
        self.note(&serde_json::json!({
            "time": time(now),
            "event": "begin",
            "pid": process::id(),
            "user": order.owner.user,
            "owner": order.owner.name,
            "login": login(),
            "reason": order.reason,
            "rule": order.to_string(),
            "payload": order.payload_name(),
            "redacted": order.is_redacted,
            "ttl_seconds": order.ttl.map(|ttl| ttl.as_secs_f64()),
            "output": output,
        }))
    }

    /// A tap ends.
    pub fn end(&mut self, order: &Order, why: &str, summary: &Summary) -> Result<(), AuditError> {
        let totals = &summary.totals;
        self.note(&serde_json::json!({
            "time": time(summary.end.wall),
            "event": "end",
            "pid": process::id(),
            "owner": order.owner.name,
            "why": why,
            "connections": summary.counts.connections,
            "calls": summary.counts.all_calls(),
            "seen_bytes": totals.sent.seen + totals.received.seen,
            "captured_bytes": totals.sent.captured + totals.received.captured,
        }))
    }

    fn note(&mut self, line: &serde_json::Value) -> Result<(), AuditError> {
        // One write, so that lines of several taps do not mix.
        let line = format!("{line}\n");
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| AuditError { path: self.path.clone(), source })
    }
}

/// Number of the user who logged in, whatever became of the process since; none where nobody did.
fn login() -> Option<u32> {
    let text = fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim().parse().ok().filter(|user| *user != u32::MAX)
}

fn time(wall: Wall) -> String {
    Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default().to_string()
}
