//! A frame as text: `{"time":…,"interval":…,"rows":…,"columns":{"source.address":[…],…},"others":[…]}`.

use std::{fmt::Write as _, time::Duration};

use weir_flow::{
    Record, Role, Tick,
    field::{FIELDS, Field, Value},
    format::json_text,
    group::Sums,
};

/// Fields that are no columns although flows can be grouped or added up by them: dear to compute, told by others, or of
/// interest to few.
const LEFT_OUT: [&str; 8] = [
    "flow.community_id",
    "network.type",
    "flow.skbs",
    "flow.reverse.skbs",
    "source.socket.cookie",
    "destination.socket.cookie",
    "source.cgroup.id",
    "destination.cgroup.id",
];

/// Fields that are columns although flows cannot be grouped by them.
const BESIDES: [&str; 4] = ["flow.start", "flow.end", "flow.end_reason", "dns.lookup.duration"];

/// Columns of a frame, in the order of the table of fields.
pub(super) fn columns() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| {
        let is_wanted = field.groupable || field.additive || BESIDES.contains(&field.name);
        is_wanted && !LEFT_OUT.contains(&field.name)
    })
}

/// The frame. A column of which no row has a value is left out.
pub(super) fn frame(tick: Tick, length: Duration, records: &[Record], others: &[(Role, Sums)]) -> String {
    let mut out = String::with_capacity(256 + 400 * records.len());
    let (time, length, rows) = (Value::Timestamp(tick.wall), Value::Duration(length), records.len());
    write!(out, r#"{{"time":"{time}","interval":{length},"rows":{rows},"columns":{{"#)
        .expect("a string takes any text");
    let mut is_first = true;
    for field in columns() {
        let start = out.len();
        if !is_first {
            out.push(',');
        }
        json_text(field.name, &mut out);
        out.push_str(":[");
        let mut is_absent = true;
        for (index, record) in records.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            let value = field.value(record);
            is_absent &= value.is_absent();
            json_value(&value, &mut out);
        }
        out.push(']');
        if is_absent {
            out.truncate(start);
        } else {
            is_first = false;
        }
    }
    out.push_str(r#"},"others":["#);
    for (index, (role, sums)) in others.iter().enumerate() {
        let separator = if index > 0 { "," } else { "" };
        let Sums { flows, forward, reverse, .. } = sums;
        write!(
            out,
            r#"{separator}{{"flow.observation":"{role}","flow.count":{flows},"flow.packets":{},"flow.bytes":{},"flow.reverse.packets":{},"flow.reverse.bytes":{}}}"#,
            forward.packets, forward.bytes, reverse.packets, reverse.bytes
        )
        .expect("a string takes any text");
    }
    out.push_str("]}");
    out
}

fn json_value(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Absent => out.push_str("null"),
        Value::Integer(_) | Value::Duration(_) | Value::Boolean(_) => {
            write!(out, "{value}").expect("a string takes any text");
        }
        Value::Text(text) => json_text(text, out),
        // None of these can contain anything that needs escaping.
        Value::Address(_) | Value::Protocol(_) | Value::Timestamp(_) | Value::Flags(_) => {
            write!(out, "\"{value}\"").expect("a string takes any text");
        }
    }
}
