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

/// Hides passwords in addresses, at any depth.
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

/// The address without its password, if it has one: `scheme://user:password@host` or `…?password=…` (RFC 3986, 3.2.1).
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let mut shown = rest.to_owned();
    let end = shown.find(['/', '?', '#']).unwrap_or(shown.len());
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

/// `name=value`, whose value is hidden if the name says that it should be.
fn without_value(pair: &str) -> String {
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["password", "token", "secret", "key"].iter().any(|word| name.contains(word))
    };
    match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    }
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
                "postgres://weir:…@db:5432/flows?sslmode=require",
            ),
            ("postgres://db/flows?user=weir&password=hunter2", "postgres://db/flows?user=weir&password=…"),
            ("https://collector/?api_key=1&x=2", "https://collector/?api_key=…&x=2"),
            ("https://weir@collector:4318", "https://weir@collector:4318"),
            ("https://[::1]:4318/a:b@c", "https://[::1]:4318/a:b@c"),
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
