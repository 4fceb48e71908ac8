//! One flat JSON object per record.

use std::fmt::Write as _;

use crate::{
    Record,
    field::{FIELDS, Value},
};

/// Appends `record` as one line: an object with the names of [`FIELDS`], absent fields left out, and a line feed.
///
/// Counters, ports and durations (in seconds) are numbers, everything else is text. Identifiers of 64 bits are
/// numbers too: readers that keep numbers in floating point round those above 2^53.
pub fn json_line(record: &Record, out: &mut String) {
    json_object(FIELDS.iter().map(|field| (field.name, field.value(record))), out);
}

/// Appends an object with these names and values, absent values left out, and a line feed.
pub fn json_object<'n, 'r>(fields: impl Iterator<Item = (&'n str, Value<'r>)>, out: &mut String) {
    out.push('{');
    let mut separator = "";
    for (name, value) in fields {
        if value.is_absent() {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        json_text(name, out);
        out.push(':');
        match value {
            Value::Integer(_) | Value::Duration(_) | Value::Boolean(_) => push(&value, out),
            Value::Text(text) => json_text(&text, out),
            // None of these can contain anything that needs escaping.
            Value::Absent
            | Value::Address(_)
            | Value::Protocol(_)
            | Value::Timestamp(_)
            | Value::Flags(_) => {
                out.push('"');
                push(&value, out);
                out.push('"');
            }
        }
    }
    out.push_str("}\n");
}

/// Appends `text` as a JSON string, with quotes (RFC 8259 section 7).
pub fn json_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("a string takes any text");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn push(value: &Value<'_>, out: &mut String) {
    write!(out, "{value}").expect("a string takes any text");
}
