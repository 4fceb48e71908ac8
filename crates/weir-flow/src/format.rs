//! Records as text: JSON lines, CSV, the log block, a table.
//!
//! Everything appends to a `String`; nothing writes, colours or looks at a clock. JSON and CSV follow
//! [`FIELDS`](crate::field::FIELDS), so a new field appears in both by itself.

mod base64;
mod csv;
mod json;
mod log;
#[cfg(test)]
pub(crate) mod samples;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    base64::base64,
    csv::{csv_header, csv_line, csv_values},
    json::{json_line, json_object, json_text},
    log::{conversation, log_block, log_lines},
    table::{TableOptions, group_table, table},
};

/// The text without control characters: names come from strangers, and nothing of theirs may steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
