//! Comma-separated values (RFC 4180, with line feeds alone, as Unix tools expect).

use std::{borrow::Cow, fmt::Write as _};

use crate::{
    Record,
    field::{FIELDS, Value},
};

/// Appends the line of column names.
pub fn csv_header(out: &mut String) {
    csv_values(FIELDS.iter().map(|field| Value::Text(Cow::Borrowed(field.name))), out);
}

/// Appends one line with every field of `record`; what is absent is empty.
pub fn csv_line(record: &Record, out: &mut String) {
    csv_values(FIELDS.iter().map(|field| field.value(record)), out);
}

/// Appends one line with these values.
pub fn csv_values<'r>(values: impl Iterator<Item = Value<'r>>, out: &mut String) {
    for (column, value) in values.enumerate() {
        if column > 0 {
            out.push(',');
        }
        match value {
            Value::Text(text) => cell(&text, out),
            // None of these can contain a comma, a quote or a line break.
            plain => write!(out, "{plain}").expect("a string takes any text"),
        }
    }
    out.push('\n');
}

fn cell(text: &str, out: &mut String) {
    if text.contains([',', '"', '\n', '\r']) {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}
