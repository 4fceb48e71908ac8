//! Protocol Buffers by hand, for what there is much of.
//!
//! A flow has some fifty attributes. As messages of `prost`, each would be two strings on the heap, made and dropped a
//! moment later; here it is written to where it is sent from. The tests compare the bytes with those of `prost`.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use weir_flow::field::Value;

/// Fields of `KeyValue` and `AnyValue` (opentelemetry/proto/common/v1/common.proto).
const KEY: u32 = 1;
const VALUE: u32 = 2;
const STRING_VALUE: u32 = 1;
const BOOL_VALUE: u32 = 2;
const INT_VALUE: u32 = 3;
const DOUBLE_VALUE: u32 = 4;

/// Kinds of values on the wire.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Most bytes of a number.
pub(super) const LONGEST_VARINT: usize = 10;

/// Appends a number in groups of seven bits.
pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits and a mark")]
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "what is left is less than 128")]
    out.push(number as u8);
}

/// Appends what comes before the content of a field with a length.
pub(super) fn header(out: &mut Vec<u8>, field: u32, length: usize) {
    tag(out, field, LENGTH);
    varint(out, length as u64);
}

/// Appends a field with a number.
pub(super) fn number(out: &mut Vec<u8>, field: u32, number: u64) {
    tag(out, field, VARINT);
    varint(out, number);
}

/// Appends a field with a number of eight bytes.
pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, number: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends a field with bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    header(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a field with whatever `write` appends.
pub(super) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    // Most are shorter than 128 bytes and need one byte for that; the others are moved.
    let place = out.len();
    out.push(0);
    write(out);
    let length = out.len() - place - 1;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[place] = short;
        return;
    }
    let mut prefix = Vec::with_capacity(LONGEST_VARINT);
    varint(&mut prefix, length as u64);
    let end = out.len();
    out.resize(end + prefix.len() - 1, 0);
    out.copy_within(place + 1..end, place + prefix.len());
    out[place..place + prefix.len()].copy_from_slice(&prefix);
}

/// Appends an attribute with text.
pub(super) fn text_attribute(out: &mut Vec<u8>, field: u32, name: &str, text: &str) {
    message(out, field, |out| {
        bytes(out, KEY, name.as_bytes());
        message(out, VALUE, |out| bytes(out, STRING_VALUE, text.as_bytes()));
    });
}

/// Appends an attribute. Counters, ports and identifiers are integers, durations seconds with a fraction, truth values
/// themselves; everything else is the text that it also is in JSON. What is absent is left out.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &Value<'_>) {
    if value.is_absent() {
        return;
    }
    message(out, field, |out| {
        bytes(out, KEY, name.as_bytes());
        message(out, VALUE, |out| any_value(out, value));
    });
}

fn any_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        // The integers of OTLP have a sign.
        Value::Integer(integer) if i64::try_from(*integer).is_ok() => number(out, INT_VALUE, *integer),
        Value::Boolean(truth) => number(out, BOOL_VALUE, u64::from(*truth)),
        Value::Duration(duration) => fixed64(out, DOUBLE_VALUE, seconds(*duration).to_bits()),
        Value::Text(text) => bytes(out, STRING_VALUE, text.as_bytes()),
        Value::Absent
        | Value::Integer(_)
        | Value::Address(_)
        | Value::Protocol(_)
        | Value::Timestamp(_)
        | Value::Flags(_) => message(out, STRING_VALUE, |out| {
            write!(Text(out), "{value}").expect("a vector takes any text");
        }),
    }
}

/// The number nearest to what is written in JSON, where sums of seconds and fractions would be one off.
#[expect(clippy::cast_precision_loss, reason = "exact up to a hundred days, and nearly so beyond")]
fn seconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e9
}

/// Takes text as its bytes.
struct Text<'o>(&'o mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use prost::Message as _;

    use super::*;

    #[test]
    fn attributes_are_the_bytes_that_prost_writes() {
        let long = "x".repeat(200);
        let longest = "y".repeat(70_000);
        let string = |text: &str| any_value::Value::StringValue(text.to_owned());
        let cases = [
            (Value::Integer(0), any_value::Value::IntValue(0)),
            (Value::Integer(300), any_value::Value::IntValue(300)),
            (Value::Integer(u64::MAX >> 1), any_value::Value::IntValue(i64::MAX)),
            (Value::Integer(u64::MAX), string("18446744073709551615")),
            (Value::Boolean(true), any_value::Value::BoolValue(true)),
            (Value::Boolean(false), any_value::Value::BoolValue(false)),
            (Value::Duration(Duration::from_millis(1500)), any_value::Value::DoubleValue(1.5)),
            (Value::Text("".into()), string("")),
            (Value::Text("web".into()), string("web")),
            (Value::Text(long.as_str().into()), string(&long)),
            (Value::Text(longest.as_str().into()), string(&longest)),
            (Value::Protocol(6), string("tcp")),
            (Value::Protocol(250), string("250")),
            (Value::Address("2001:db8::1".parse().unwrap()), string("2001:db8::1")),
        ];
        for (value, expect) in cases {
            let mut out = Vec::new();
            attribute(&mut out, 6, "some.name", &value);
            let wanted = KeyValue {
                key: "some.name".to_owned(),
                value: Some(AnyValue { value: Some(expect) }),
                ..KeyValue::default()
            };
            let mut expect = Vec::new();
            prost::encoding::message::encode(6, &wanted, &mut expect);
            assert_eq!(out, expect, "{value:?}");
            assert!(KeyValue::decode(&out[out.len() - wanted.encoded_len()..]).is_ok());
        }
        let mut out = Vec::new();
        attribute(&mut out, 6, "some.name", &Value::Absent);
        assert!(out.is_empty());
    }
}
