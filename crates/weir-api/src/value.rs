//! Values of fields as JSON, the same as `weir … -o json` prints them, and back.

use std::time::Duration;

use serde_json::{Number, Value as Json};
use weir_flow::field::{Kind, Value};

/// A value as JSON; the absent one is null.
pub fn to_json(value: &Value<'_>) -> Json {
    match value {
        Value::Absent => Json::Null,
        Value::Integer(number) => Json::from(*number),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Duration(duration) => {
            // By way of text, which gives the nearest number; adding the parts of a second rounds twice.
            let seconds = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos()).parse();
            seconds.ok().and_then(Number::from_f64).map_or(Json::Null, Json::Number)
        }
        Value::Text(text) => Json::from(text.as_ref()),
        Value::Address(_) | Value::Protocol(_) | Value::Timestamp(_) | Value::Flags(_) => {
            Json::from(value.to_string())
        }
    }
}

/// The value of a field of this kind; `None` where the JSON is something else. Null is the absent value.
pub fn from_json(kind: Kind, json: &Json) -> Option<Value<'static>> {
    match (kind, json) {
        (_, Json::Null) => Some(Value::Absent),
        (Kind::Duration, Json::Number(seconds)) => {
            let seconds = seconds.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
            Some(Value::Duration(Duration::try_from_secs_f64(seconds).ok()?))
        }
        (Kind::Port | Kind::Integer | Kind::Bytes, Json::Number(number)) => {
            number.as_u64().map(Value::Integer)
        }
        (Kind::Boolean, Json::Bool(truth)) => Some(Value::Boolean(*truth)),
        (Kind::Address | Kind::Protocol | Kind::Timestamp | Kind::Flags | Kind::Text, Json::String(text)) => {
            Value::read(kind, text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::{Wall, field::TcpFlags};

    use super::*;

    #[test]
    fn values_come_back_from_json() {
        let check = |kind, value: Value<'static>, json: &str| {
            assert_eq!(to_json(&value).to_string(), json);
            assert_eq!(from_json(kind, &to_json(&value)), Some(value));
        };
        check(Kind::Address, Value::Address([10, 0, 0, 1].into()), "\"10.0.0.1\"");
        check(Kind::Protocol, Value::Protocol(6), "\"tcp\"");
        check(Kind::Integer, Value::Integer(u64::MAX), "18446744073709551615");
        check(Kind::Duration, Value::Duration(Duration::from_nanos(1_012_000_001)), "1.012000001");
        check(Kind::Duration, Value::Duration(Duration::ZERO), "0.0");
        check(Kind::Duration, Value::Duration(Duration::from_nanos(31_176_919_861)), "31.176919861");
        check(Kind::Timestamp, Value::Timestamp(Wall(1)), "\"1970-01-01T00:00:00.000000001Z\"");
        check(Kind::Flags, Value::Flags(TcpFlags(0x12)), "\"SYN|ACK\"");
        check(Kind::Boolean, Value::Boolean(true), "true");
        check(Kind::Text, Value::Text("a \"b\"".into()), "\"a \\\"b\\\"\"");
        check(Kind::Port, Value::Absent, "null");
        assert_eq!(from_json(Kind::Port, &Json::from("80")), None);
        assert_eq!(from_json(Kind::Address, &Json::from("no")), None);
    }
}
