//! A flow as a log record: an event `network.flow`.

use weir_flow::{Record, field::FIELDS};

use super::wire;

/// Name of the event.
pub(super) const EVENT: &str = "network.flow";

/// Fields of `LogRecord` (opentelemetry/proto/logs/v1/logs.proto).
const TIME: u32 = 1;
const SEVERITY: u32 = 2;
const SEVERITY_TEXT: u32 = 3;
const ATTRIBUTES: u32 = 6;
const OBSERVED_TIME: u32 = 11;
const EVENT_NAME: u32 = 12;

/// Appends a flow as field `field`: when its last packet passed, when that was read, whether it failed, and every field
/// that has a value under its own name.
pub(super) fn append(out: &mut Vec<u8>, field: u32, record: &Record, observed_ns: u64) {
    let (severity, severity_text) = severity(record);
    wire::message(out, field, |out| {
        wire::fixed64(out, TIME, record.end.0);
        wire::number(out, SEVERITY, severity);
        wire::bytes(out, SEVERITY_TEXT, severity_text.as_bytes());
        for field in FIELDS {
            wire::attribute(out, ATTRIBUTES, field.name, &field.value(record));
        }
        wire::fixed64(out, OBSERVED_TIME, observed_ns);
        wire::bytes(out, EVENT_NAME, EVENT.as_bytes());
    });
}

/// A flow that came to nothing is a warning.
fn severity(record: &Record) -> (u64, &'static str) {
    let outcome = &record.outcome;
    if outcome.tcp_failure.is_some() || outcome.is_unanswered == Some(true) {
        (13, "WARN")
    } else {
        (9, "INFO")
    }
}
