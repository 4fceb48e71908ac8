//! Types of argument values: interface patterns, namespaces, names of fields, filters.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};
use weir_flow::field::{self, FIELDS, Field, Subject};

/// The words of a filter as they were given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilterWords<'a>(pub(super) &'a [String]);

impl FilterWords<'_> {
    /// The words as one text; empty if there are none.
    pub(crate) fn text(&self) -> String {
        self.0.join(" ")
    }
}

/// Name of an interface, or a pattern in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Whether it names one interface.
    pub(crate) fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The pattern as given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the interface is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Tries the shortest match of each `*` first and lengthens the last one on a mismatch, which suffices.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut in_pattern, mut in_name) = (0, 0);
    let mut retry = None;
    while in_name < name.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                in_pattern += 1;
                retry = Some((in_pattern, in_name));
            }
            Some(&byte) if byte == b'?' || byte == name[in_name] => {
                in_pattern += 1;
                in_name += 1;
            }
            _ => {
                let Some((after_star, matched)) = retry else { return false };
                retry = Some((after_star, matched + 1));
                (in_pattern, in_name) = (after_star, matched + 1);
            }
        }
    }
    pattern[in_pattern..].iter().all(|byte| *byte == b'*')
}

/// Reads an interface pattern.
pub(super) fn parse_pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("an interface has a name".to_owned());
    }
    Ok(Pattern(text.to_owned()))
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetnsName {
    /// That of a process.
    Pid(u32),
    /// One that `ip netns` knows.
    Name(String),
}

/// Reads the name of a namespace; a number is a process.
pub(super) fn parse_netns(text: &str) -> Result<NetnsName, String> {
    match text.parse() {
        Ok(pid) => Ok(NetnsName::Pid(pid)),
        Err(_) if text.is_empty() || text.contains('/') => {
            Err("use the name of a namespace (see `ip netns`) or the number of a process".to_owned())
        }
        Err(_) => Ok(NetnsName::Name(text.to_owned())),
    }
}

/// Reads the name of a field that flows can be grouped by; the short names of filters work too.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldName;

impl TypedValueParser for FieldName {
    type Value = &'static Field;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Self::Value, Error> {
        let name = value.to_string_lossy();
        groupable(&name).map_err(|reason| {
            let mut error = Error::new(ErrorKind::ValueValidation).with_cmd(command);
            if let Some(arg) = arg {
                error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
            }
            error.insert(ContextKind::InvalidValue, ContextValue::String(name.clone().into_owned()));
            error.insert(ContextKind::Custom, ContextValue::String(reason));
            error
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
    fn a_pattern_matches_as_in_a_shell() {
        fn check(pattern: &str, name: &str, expect: bool) {
            assert_eq!(parse_pattern(pattern).unwrap().matches(name), expect, "{pattern} {name}");
        }
        check("eth0", "eth0", true);
        check("eth0", "eth01", false);
        check("eth*", "eth01", true);
        check("eth*", "eth", true);
        check("*", "lo", true);
        check("*0", "eth00", true);
        check("v*t?1", "veth-t01", true);
        check("v*t?1", "veth-t1", false);
        check("eth?", "eth", false);
        check("**a", "aab", false);
    }

    #[test]
    fn a_number_is_a_process_and_a_path_is_no_namespace() {
        assert_eq!(parse_netns("42"), Ok(NetnsName::Pid(42)));
        assert_eq!(parse_netns("shop"), Ok(NetnsName::Name("shop".to_owned())));
        assert!(parse_netns("/proc/1/ns/net").is_err());
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
