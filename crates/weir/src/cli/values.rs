//! Types of argument values: interface patterns, namespaces, names of fields, filters.

use std::{ffi::OsStr, time::Duration};

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, TypedValueParser},
    error::ErrorKind,
};
use weir_agent::live::{NoName, Pattern};
use weir_api::history::Moment;
use weir_flow::field::{self, FIELDS, Field, Subject};

use weir_agent::units::parse_duration;

/// The words of a filter as they were given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilterWords<'a>(pub(super) &'a [String]);

impl FilterWords<'_> {
    /// The words as one text; empty if there are none.
    pub(crate) fn text(&self) -> String {
        self.0.join(" ")
    }
}

/// Reads an interface pattern.
pub(super) fn parse_pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|error: NoName| error.to_string())
}

/// Reads a moment.
pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    text.parse()
}

/// Shortest interval: a reading of the kernel's counters takes 10 to 30 ms.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Reads the length of an interval.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST_INTERVAL { Err("must be 50ms or more".to_owned()) } else { Ok(interval) }
}

/// A network namespace: a name that `ip netns` knows, or the number of a process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetnsName(String);

impl NetnsName {
    /// The name or number as it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the name of a namespace, or the number of a process in it.
pub(super) fn parse_netns(text: &str) -> Result<NetnsName, String> {
    if text.is_empty() || text.contains('/') {
        return Err("use the name of a namespace (see `ip netns`) or the number of a process".to_owned());
    }
    Ok(NetnsName(text.to_owned()))
}

/// Reads the name of a field that flows can be grouped by; the short names of filters work too.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldName;

impl TypedValueParser for FieldName {
    type Value = &'static Field;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Self::Value, Error> {
        let name = value.to_string_lossy();
        groupable(&name).map_err(|reason| {
            let arg = arg.map(ToString::to_string).unwrap_or_default();
            let text = format!("invalid value '{name}' for '{arg}': {reason}\n");
            Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }

    /// For completion.
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(
            FIELDS.iter().filter(|field| field.groupable).map(|field| PossibleValue::new(field.name)),
        ))
    }
}

fn groupable(name: &str) -> Result<&'static Field, String> {
    match Subject::by_name(name) {
        Some(Subject::One(field)) if field.groupable => Ok(field),
        Some(Subject::One(field)) => Err(format!("flows cannot be grouped by `{}`", field.name)),
        Some(Subject::Either { source, destination, .. }) => {
            Err(format!("`{name}` means either end: use {} or {}", source.name, destination.name))
        }
        None => Err(match field::nearest_name(name) {
            Some(near) => format!("unknown field, did you mean `{near}`?"),
            None => "unknown field".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_no_shorter_than_a_reading() {
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_interval("1ms"), Err("must be 50ms or more".to_owned()));
    }

    #[test]
    fn a_path_is_no_namespace() {
        assert_eq!(parse_netns("shop").map(|netns| netns.0), Ok("shop".to_owned()));
        assert!(parse_netns("/proc/1/ns/net").is_err());
        assert!(parse_netns("").is_err());
    }

    #[test]
    fn groups_are_by_fields_that_can_be_grouped() {
        fn check(name: &str, expect: Result<&str, &str>) {
            assert_eq!(groupable(name).map(|field| field.name), expect.map_err(str::to_owned), "{name}");
        }
        check("dst", Ok("destination.address"));
        check("dst.port", Ok("destination.port"));
        check("network.transport", Ok("network.transport"));
        check("flow.bytes", Err("flows cannot be grouped by `flow.bytes`"));
        check("port", Err("`port` means either end: use source.port or destination.port"));
        check("prto", Err("unknown field, did you mean `proto`?"));
        check("zzzzzzzz", Err("unknown field"));
    }
}
