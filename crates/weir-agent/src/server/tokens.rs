//! [`Tokens`]: the bearer token, read at the start and again on SIGHUP.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::{Secret, SecretError, SecretSource};

/// The token that clients must send, if there is one.
#[derive(Debug)]
pub struct Tokens {
    source: Option<SecretSource>,
    current: ArcSwapOption<Secret>,
}

impl Tokens {
    /// Reads the token, if one is wanted.
    pub fn open(source: Option<SecretSource>) -> Result<Self, SecretError> {
        let tokens = Self { source, current: ArcSwapOption::empty() };
        tokens.read()?;
        Ok(tokens)
    }

    /// Lets everybody in.
    pub(crate) fn none() -> Self {
        Self { source: None, current: ArcSwapOption::empty() }
    }

    /// Reads it again. On failure the old one stays.
    pub fn read(&self) -> Result<(), SecretError> {
        if let Some(source) = &self.source {
            self.current.store(Some(Arc::new(source.read()?)));
        }
        Ok(())
    }

    /// Whether an `Authorization` header lets its sender in.
    pub fn admit(&self, authorization: Option<&str>) -> bool {
        let current = self.current.load();
        let Some(secret) = current.as_ref() else { return true };
        // The name of the scheme has no case (RFC 9110 section 11.1).
        let token = authorization
            .and_then(|header| header.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        token.is_some_and(|token| secret.is(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_lets_in_and_a_new_one_takes_its_place() {
        assert!(Tokens::open(None).unwrap().admit(None));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "the first token of all\n").unwrap();
        let tokens = Tokens::open(Some(SecretSource::File(path.clone()))).unwrap();
        for (header, expect) in [
            (None, false),
            (Some("Bearer the first token of all"), true),
            (Some("bearer  the first token of all"), true),
            (Some("Basic the first token of all"), false),
            (Some("Bearer the first token"), false),
            (Some("Bearer "), false),
            (Some("the first token of all"), false),
        ] {
            assert_eq!(tokens.admit(header), expect, "{header:?}");
        }
        std::fs::write(&path, "short").unwrap();
        assert!(tokens.read().is_err());
        assert!(tokens.admit(Some("Bearer the first token of all")));
        std::fs::write(&path, "the second token of all").unwrap();
        tokens.read().unwrap();
        assert!(!tokens.admit(Some("Bearer the first token of all")));
        assert!(tokens.admit(Some("Bearer the second token of all")));
        assert!(!format!("{tokens:?}").contains("second"));
    }
}
