//! Records as text: JSON lines, CSV, the log block, a table.
//!
//! Everything appends to a `String`; nothing writes, colours or looks at a clock. JSON and CSV follow
//! [`FIELDS`](crate::field::FIELDS), so a new field appears in both by itself.

mod csv;
mod json;
mod log;
#[cfg(test)]
pub(crate) mod samples;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    csv::{csv_header, csv_line, csv_values},
    json::{json_line, json_object, json_text},
    log::{conversation, log_block, log_lines},
    table::{TableOptions, group_table, table},
};
