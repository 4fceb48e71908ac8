//! [`Secret`]: something that must not be seen, and where it comes from.
//!
//! A configuration names the file or the variable, never the secret itself. Neither `Debug` nor any message shows it.

use std::{env, fmt, fs, io, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{At, Problems};

/// Where a secret is to be found; one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretDocument {
    /// File that holds it; white space around it does not count.
    pub file: Option<PathBuf>,
    /// Environment variable that holds it.
    pub variable: Option<String>,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// A secret text. It is compared in constant time and shown to nobody.
#[derive(Clone)]
pub struct Secret(String);

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret in {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The variable is not set.
    #[error("the variable {0} is not set")]
    Variable(String),
    /// It is too short to keep anybody out.
    #[error("the secret in {0} is shorter than 16 characters")]
    Short(String),
}

/// Fewest bytes of a secret.
const SHORTEST: usize = 16;

impl SecretDocument {
    /// The source, if exactly one is named; else that is a problem.
    pub fn validate(self, at: &At, problems: &mut Problems) -> Option<SecretSource> {
        match (self.file, self.variable) {
            (Some(file), None) => Some(SecretSource::File(file)),
            (None, Some(variable)) => Some(SecretSource::Variable(variable)),
            (Some(_), Some(_)) => {
                problems.add(at, "name a file or a variable, not both");
                None
            }
            (None, None) => {
                problems.add(at, "needs `file` or `variable`");
                None
            }
        }
    }
}

impl SecretSource {
    /// Reads a secret that must keep everybody out by itself.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let secret = self.read_any()?;
        let place = match self {
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => name.clone(),
        };
        if secret.0.len() < SHORTEST { Err(SecretError::Short(place)) } else { Ok(secret) }
    }

    /// Reads a secret that somebody else chose, however short.
    pub fn read_any(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::File(path) => {
                let file = |source| SecretError::File { path: path.clone(), source };
                fs::read_to_string(path).map_err(file)?
            }
            Self::Variable(name) => env::var(name).map_err(|_unset| SecretError::Variable(name.clone()))?,
        };
        Ok(Secret(text.trim().to_owned()))
    }
}

impl Secret {
    /// A secret that somebody gave.
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    /// The secret, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the secret. Takes the same time wherever they differ.
    pub fn is(&self, text: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), text.as_bytes());
        let mut difference = u8::from(ours.len() != theirs.len());
        for (index, byte) in ours.iter().enumerate() {
            difference |= byte ^ theirs.get(index).copied().unwrap_or_default();
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret("0123456789abcdef".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(secret.is("0123456789abcdef"));
        for wrong in ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde"] {
            assert!(!secret.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_file_gives_its_secret_without_white_space_and_no_short_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "  a token of some length\n").unwrap();
        assert!(SecretSource::File(path.clone()).read().unwrap().is("a token of some length"));
        fs::write(&path, "hunter2").unwrap();
        let error = SecretSource::File(path).read().unwrap_err().to_string();
        assert!(error.contains("shorter than 16") && !error.contains("hunter2"), "{error}");
    }
}
