//! The configuration as it is shown: complete, with every default, and without secrets.
//!
//! Secrets are not in it anyway, only where they come from. But addresses of peers may have a password written into them, and
//! no text of a user is trusted to have none.

use serde_json::{Map, Value};

use super::Document;

/// Keys that a reload puts into effect. The reference page marks the same ones.
const RELOADED: [&str; 4] = ["filter", "log", "stop_deadline", "sinks"];

/// What stands in place of a password.
const HIDDEN: &str = "…";

/// A configuration to be shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown(Map<String, Value>);

impl Shown {
    /// Of what was written, defaults included.
    pub(super) fn of(document: &Document) -> Self {
        match serde_json::to_value(document) {
            Ok(Value::Object(mut keys)) => {
                keys.values_mut().for_each(hide);
                Self(keys)
            }
            // Plain types always become an object; nothing is better shown than something wrong.
            _ => Self::default(),
        }
    }

    /// The keys and their values.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    /// What is in effect after a reload with `wanted`.
    #[must_use]
    pub fn reloaded(&self, wanted: &Self) -> Self {
        let mut keys = self.0.clone();
        for key in RELOADED {
            if let Some(value) = wanted.0.get(key) {
                keys.insert(key.to_owned(), value.clone());
            }
        }
        Self(keys)
    }
}

/// Hides passwords in texts, at any depth.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(shown) = without_password(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Object(keys) => keys.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text without its password, if it may have one: `scheme://user:password@host`, `…?name=value` (RFC 3986, 3.2.1) or
/// `password=…`. Too much is hidden rather than too little.
fn without_password(text: &str) -> Option<String> {
    let Some((scheme, rest)) = text.split_once("://") else { return without_word(text) };
    let mut shown = rest.to_owned();
    let end = end_of_authority(scheme, &shown);
    if let Some(at) = shown[..end].rfind('@')
        && let Some(colon) = shown[..at].find(':')
    {
        shown.replace_range(colon + 1..at, HIDDEN);
    }
    if let Some(query) = shown.find('?') {
        let pairs: Vec<String> = shown[query + 1..].split('&').map(without_value).collect();
        shown.replace_range(query + 1.., &pairs.join("&"));
    }
    (shown != rest).then(|| format!("{scheme}://{shown}"))
}

/// Where user, host and port end. A password may have any character in it, against the rules; only where it is certain that
/// there is none do the rules decide.
fn end_of_authority(scheme: &str, rest: &str) -> usize {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    // With a user in it, it has ended; an address in brackets begins no user's name, and without a colon nobody has a password.
    let is_certain = authority.contains('@') || authority.starts_with('[') || !authority.contains(':');
    if scheme.starts_with("http") && is_certain { end } else { rest.len() }
}

/// `name=value` without the value, or nothing of what has no name.
fn without_value(pair: &str) -> String {
    let name = pair.split_once('=').map_or(String::new(), |(name, _)| format!("{name}="));
    if pair.is_empty() { name } else { name + HIDDEN }
}

/// What comes behind `password=` and the like is hidden, to the end.
fn without_word(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let ends = ["password=", "passwd=", "pwd=", "token=", "secret=", "api_key="]
        .iter()
        .filter_map(|word| lower.find(word).map(|start| start + word.len()));
    ends.min().filter(|end| *end < text.len()).map(|end| format!("{}{HIDDEN}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference;

    #[test]
    fn passwords_in_addresses_are_hidden_and_nothing_else() {
        let cases = [
            ("postgres://weir:hunter2@db/flows", "postgres://weir:…@db/flows"),
            (
                "postgres://weir:a@b:c@db:5432/flows?sslmode=require",
                "postgres://weir:…@db:5432/flows?sslmode=…",
            ),
            ("postgres://weir:hun/ter2@db/flows", "postgres://weir:…@db/flows"),
            ("postgres://weir:12/34@db/flows", "postgres://weir:…@db/flows"),
            ("postgres://weir:hun#ter2@db/flows", "postgres://weir:…@db/flows"),
            ("postgres://weir:h?unter2@db/flows", "postgres://weir:…@db/flows"),
            ("postgres://weir:h?a=1&b=2@db/flows?c=3", "postgres://weir:…@db/flows?c=…"),
            ("postgres://db:5432/flows", "postgres://db:5432/flows"),
            ("postgres://db/flows?user=weir&password=hunter2", "postgres://db/flows?user=…&password=…"),
            ("https://collector/?sig=1&x=2#3", "https://collector/?sig=…&x=…"),
            ("https://collector/?hunter2", "https://collector/?…"),
            ("https://weir@collector:4318", "https://weir@collector:4318"),
            ("https://weir:hun/ter2@collector:4318", "https://weir:…@collector:4318"),
            ("https://weir:12/34@collector:4318", "https://weir:…@collector:4318"),
            ("https://collector:4318/v1/logs", "https://collector:4318/v1/logs"),
            ("https://collector/a:b@c", "https://collector/a:b@c"),
            ("https://[::1]:4318/a:b@c", "https://[::1]:4318/a:b@c"),
            ("host=db Password=hunter2 user=weir", "host=db Password=…"),
            ("not port=22", "not port=22"),
        ];
        for (text, shown) in cases {
            let mut value = serde_json::json!([{ "url": text }]);
            hide(&mut value);
            assert_eq!(value[0]["url"], shown);
        }
    }

    #[test]
    fn the_keys_of_a_reload_are_those_that_are_marked() {
        let schema = reference::schema();
        let keys = schema["properties"].as_object().unwrap().iter();
        let mut marked: Vec<&str> =
            keys.filter(|(_, key)| key.get("x-reload").is_some()).map(|(name, _)| name.as_str()).collect();
        let mut reloaded = RELOADED;
        reloaded.sort_unstable();
        marked.sort_unstable();
        assert_eq!(marked, reloaded);
    }

    #[test]
    fn a_reload_shows_only_what_it_changes() {
        let [mut old, mut new] = [Document::default(), Document::default()];
        (old.interval, new.interval) = ("1s".into(), "2s".into());
        new.filter = "port=53".to_owned();
        let shown = Shown::of(&old).reloaded(&Shown::of(&new));
        assert_eq!(shown.keys()["interval"], "1s");
        assert_eq!(shown.keys()["filter"], "port=53");
    }
}
