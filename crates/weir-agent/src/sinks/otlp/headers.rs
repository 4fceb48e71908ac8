//! Headers of requests, which mostly hold a secret.

use std::{env, fmt};

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::environment;
use crate::config::{At, Problems, SecretDocument, SecretError, SecretSource};

/// A header, with one of `value`, `file` and `variable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct HeaderDocument {
    /// Its name, such as `authorization`.
    pub name: String,
    /// Its value. It is shown nowhere; but better keep secrets in files.
    pub value: Option<HiddenText>,
    /// File that holds its value, such as `Bearer …`. It is read for each request.
    pub file: Option<std::path::PathBuf>,
    /// Environment variable that holds its value.
    pub variable: Option<String>,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct HiddenText(String);

/// Where headers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// One header whose value was written down.
    Value(HeaderName, HiddenText),
    /// One header whose value is elsewhere.
    Secret(HeaderName, SecretSource),
    /// A list in an environment variable: `name=value,name=value`.
    Variable(String),
}

/// Why there are no headers. What is in them is not told.
#[derive(Debug, Error)]
pub(super) enum HeaderError {
    /// The value of one is not to be had.
    #[error("no value for the header {0}")]
    Secret(HeaderName, #[source] SecretError),
    /// A value has line feeds or the like in it.
    #[error("the value for the header {0} has characters that no header may have")]
    Value(HeaderName),
    /// The list is none.
    #[error("the variable {name} {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Headers that say how a request is to be read; nobody else may say so.
const OURS: [&str; 6] =
    ["content-type", "content-length", "content-encoding", "transfer-encoding", "te", "host"];

impl HeaderDocument {
    /// Judges it.
    pub(super) fn validate(&self, at: &At, problems: &mut Problems) -> Option<HeaderSource> {
        let name = name(&self.name).map_err(|reason| problems.add(&at.key("name"), reason)).ok();
        match (&self.value, &self.file, &self.variable) {
            (Some(value), None, None) => {
                if HeaderValue::from_str(&value.0).is_err() {
                    problems.add(&at.key("value"), "has characters that no header may have");
                }
                Some(HeaderSource::Value(name?, value.clone()))
            }
            (None, None, None) => {
                problems.add(at, "needs `value`, `file` or `variable`");
                None
            }
            (None, file, variable) => {
                let secret = SecretDocument { file: file.clone(), variable: variable.clone() };
                let source = secret.validate(at, problems);
                Some(HeaderSource::Secret(name?, source?))
            }
            (Some(_), _, _) => {
                problems.add(at, "keep one of `value`, `file` and `variable`");
                None
            }
        }
    }
}

impl HeaderSource {
    /// Puts the headers into a map. They are marked as secret.
    pub(super) fn put_into(&self, headers: &mut HeaderMap) -> Result<(), HeaderError> {
        match self {
            Self::Value(name, value) => put(headers, name, &value.0),
            Self::Secret(name, source) => {
                let secret = source.read_any().map_err(|error| HeaderError::Secret(name.clone(), error))?;
                put(headers, name, secret.reveal())
            }
            Self::Variable(variable) => {
                let wrong = |reason| HeaderError::Variable { name: variable.clone(), reason };
                let list = env::var(variable).unwrap_or_default();
                for (key, value) in environment::pairs(&list).map_err(wrong)? {
                    put(headers, &name(&key).map_err(wrong)?, &value)?;
                }
                Ok(())
            }
        }
    }
}

fn name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_wrong| "is no name of a header".to_owned())?;
    let is_ours = OURS.contains(&name.as_str()) || name.as_str().starts_with("grpc-");
    if is_ours { Err(format!("`{name}` is set by Weir")) } else { Ok(name) }
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: &str) -> Result<(), HeaderError> {
    let wrong = |_wrong| HeaderError::Value(name.clone());
    let mut value = HeaderValue::from_str(value).map_err(wrong)?;
    value.set_sensitive(true);
    headers.insert(name.clone(), value);
    Ok(())
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for HiddenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(header: &HeaderDocument) -> (Option<HeaderSource>, String) {
        let mut problems = Problems::default();
        let source = header.validate(&At::default().key("headers").index(0), &mut problems);
        (source, problems.to_string())
    }

    #[test]
    fn a_header_has_one_value_and_it_is_not_shown() {
        let value = Some(HiddenText("Bearer hunter2".to_owned()));
        let header = HeaderDocument { name: "Authorization".to_owned(), value, ..HeaderDocument::default() };
        let (source, problems) = judge(&header);
        assert_eq!(problems, "");
        for shown in [format!("{header:?}"), format!("{source:?}"), serde_json::to_string(&header).unwrap()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let mut headers = HeaderMap::new();
        source.unwrap().put_into(&mut headers).unwrap();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let header = |name: &str| HeaderDocument { name: name.to_owned(), ..HeaderDocument::default() };
        let text = |text: &str| Some(HiddenText(text.to_owned()));
        let cases = [
            (header("x-tenant"), "headers[0]: needs `value`, `file` or `variable`"),
            (HeaderDocument { value: text("a"), ..header("x y") }, "headers[0].name: is no name of a header"),
            (
                HeaderDocument { value: text("a"), ..header("Grpc-Timeout") },
                "headers[0].name: `grpc-timeout` is set by Weir",
            ),
            (
                HeaderDocument { value: text("a"), variable: Some("V".to_owned()), ..header("x") },
                "headers[0]: keep one of `value`, `file` and `variable`",
            ),
            (
                HeaderDocument { value: text("a\nb"), ..header("x") },
                "headers[0].value: has characters that no header may have",
            ),
        ];
        for (header, expect) in cases {
            assert_eq!(judge(&header).1, expect);
        }
    }
}
