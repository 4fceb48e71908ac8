//! The standard variables of OTLP exporters, which say what the file leaves open.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and its like are for all signals, `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` for one, and has
//! precedence. An empty variable is none (OpenTelemetry, "Environment variable specification").

use super::Signal;

/// Looks up a variable.
pub(crate) type Lookup<'v> = &'v dyn Fn(&str) -> Option<String>;

/// The variables, as one signal sees them.
#[derive(Clone, Copy)]
pub(super) struct Variables<'v> {
    pub(super) all: Lookup<'v>,
    pub(super) signal: Signal,
}

/// A variable that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: String,
    /// Whether it is for one signal only.
    pub(super) is_of_signal: bool,
}

impl Variables<'_> {
    /// The variable of the signal, else that of all signals. `what` is the end of its name, such as `ENDPOINT`.
    pub(super) fn find(&self, what: &str) -> Option<Found> {
        let names = [
            (format!("OTEL_EXPORTER_OTLP_{}_{what}", self.signal.in_variables()), true),
            (format!("OTEL_EXPORTER_OTLP_{what}"), false),
        ];
        names.into_iter().find_map(|(name, is_of_signal)| {
            let value = (self.all)(&name)?.trim().to_owned();
            (!value.is_empty()).then_some(Found { name, value, is_of_signal })
        })
    }
}

/// Attributes of the resource: `OTEL_RESOURCE_ATTRIBUTES`, and for the name of the service `OTEL_SERVICE_NAME`.
pub(super) fn resource(variables: Lookup<'_>) -> Result<Vec<(String, String)>, String> {
    let mut attributes = match variables("OTEL_RESOURCE_ATTRIBUTES") {
        Some(text) => pairs(&text).map_err(|reason| format!("OTEL_RESOURCE_ATTRIBUTES {reason}"))?,
        None => Vec::new(),
    };
    if let Some(name) = variables("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        attributes.push(("service.name".to_owned(), name));
    }
    Ok(attributes)
}

/// Reads `name=value,name=value`, whose values are encoded with `%` (W3C Baggage, without its properties). What is wrong
/// is told without what is in it, which may be a secret.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (decode(name.trim())?, decode(value.trim())?);
        (!name.is_empty()).then_some((name, value))
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .enumerate()
        .map(|(index, part)| {
            pair(part).ok_or_else(|| format!("is no list of name=value: look at number {}", index + 1))
        })
        .collect()
}

/// `None` if it is no text once it is decoded. A `%` that does not encode anything stays.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = after.get(..2).filter(|_| *first == b'%').and_then(byte);
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

/// The byte that two digits stand for.
fn byte(digits: &[u8]) -> Option<u8> {
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_baggage_is_written() {
        let owned = |pairs: &[(&str, &str)]| {
            Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let cases = [
            ("", owned(&[])),
            ("a=1, b = 2 ,", owned(&[("a", "1"), ("b", "2")])),
            ("authorization=Basic%20dTpw==", owned(&[("authorization", "Basic dTpw==")])),
            ("a=100%", owned(&[("a", "100%")])),
            ("a=%+f", owned(&[("a", "%+f")])),
            ("a=%2c%C3%A9", owned(&[("a", ",é")])),
            ("a=1,secret", Err("is no list of name=value: look at number 2".to_owned())),
            ("a=%ff", Err("is no list of name=value: look at number 1".to_owned())),
        ];
        for (text, expect) in cases {
            assert_eq!(pairs(text), expect, "{text}");
        }
    }

    #[test]
    fn the_variable_of_a_signal_comes_first_and_an_empty_one_is_none() {
        let variables = |name: &str| {
            let value = match name {
                "OTEL_EXPORTER_OTLP_TIMEOUT" => "100",
                "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT" => "200",
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT" | "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" => " ",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let find = |signal, what| Variables { all: &variables, signal }.find(what);
        let value = |signal| find(signal, "TIMEOUT").map(|found| (found.value, found.is_of_signal));
        assert_eq!(value(Signal::Logs), Some(("200".to_owned(), true)));
        assert_eq!(value(Signal::Spans), Some(("100".to_owned(), false)));
        assert_eq!(find(Signal::Logs, "ENDPOINT"), None);
    }

    #[test]
    fn the_name_of_the_service_has_a_variable_of_its_own() {
        let variables = |name: &str| match name {
            "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=a,k8s.node.name=node-1".to_owned()),
            "OTEL_SERVICE_NAME" => Some("b".to_owned()),
            _ => None,
        };
        let attributes = resource(&variables).unwrap();
        assert_eq!(attributes.last(), Some(&("service.name".to_owned(), "b".to_owned())));
        assert_eq!(attributes.len(), 3);
    }
}
