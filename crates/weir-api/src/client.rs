//! Asks an agent. Blocking; for commands.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use crate::history::{
    EdgesAnswer, EdgesParameters, FlowsAnswer, FlowsParameters, HintsAnswer, HintsParameters, SeriesAnswer,
    SeriesParameters,
};

/// Longest time for an answer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Most bytes of an answer.
const MOST_BYTES: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address of the agent is none.
    #[error("`{0}` is no address of an agent: use one such as http://127.0.0.1:4780")]
    Address(String),
    /// The address has a user, and most likely a password; so it is not shown.
    #[error(
        "an address of an agent has no user or password, and no `@`: it knows its clients by a token or a certificate"
    )]
    UserInfo,
    /// A certificate or a key cannot be had. What is in the file is not shown.
    #[error("cannot use {}: it holds no {what} in PEM", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot reach the agent at {url}: does it run, and is that its address?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        error: Box<ureq::Error>,
    },
    /// It refuses.
    #[error("the agent at {url} refuses ({status}): {reason}")]
    Refused {
        /// Where.
        url: String,
        /// Status of HTTP.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// What answers is no agent, or of another version.
    #[error("what answers at {url} is no agent of a version that this one understands")]
    Answer {
        /// Where.
        url: String,
        /// What is wrong.
        #[source]
        error: serde_json::Error,
    },
}

/// How agent and client prove to each other who they are.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The token that agents beyond loopback want.
    pub token: Option<String>,
    /// Certificates of those who sign agents, PEM. Without it, those that browsers trust.
    pub authority: Option<PathBuf>,
    /// The client's certificate chain and its private key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client of one agent.
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, authority, identity } = self;
        let token = token.as_ref().map(|_| "…");
        f.debug_struct("Credentials")
            .field("token", &token)
            .field("authority", authority)
            .field("identity", identity)
            .finish()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the agent at `url`, such as `http://127.0.0.1:4780`.
    pub fn new(url: &str, credentials: Credentials) -> Result<Self, ClientError> {
        let url = url.trim_end_matches('/');
        // Wherever it stands: what should be a password may have a `/` in it.
        if url.contains('@') {
            return Err(ClientError::UserInfo);
        }
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with(['/', ':']) || host.contains('?')) {
            return Err(ClientError::Address(url.to_owned()));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &credentials.authority {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(path)?));
        }
        if let Some((chain, key)) = &credentials.identity {
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(chain)?, private_key(key)?)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            // A token is for the agent alone, not for whatever proxy the environment names.
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), url: url.to_owned(), token: credentials.token })
    }

    /// Flows, or groups of them.
    pub fn flows(&self, parameters: &FlowsParameters) -> Result<FlowsAnswer, ClientError> {
        self.get("/api/v1/flows", parameters)
    }

    /// The service map.
    pub fn edges(&self, parameters: &EdgesParameters) -> Result<EdgesAnswer, ClientError> {
        self.get("/api/v1/edges", parameters)
    }

    /// Courses over time.
    pub fn series(&self, parameters: &SeriesParameters) -> Result<SeriesAnswer, ClientError> {
        self.get("/api/v1/series", parameters)
    }

    /// Values of a field.
    pub fn hints(&self, parameters: &HintsParameters) -> Result<HintsAnswer, ClientError> {
        self.get("/api/v1/hints", parameters)
    }

    /// Asks for anything.
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &impl Serialize,
    ) -> Result<T, ClientError> {
        let url = format!("{}{path}", self.url);
        let unreachable =
            |error: ureq::Error| ClientError::Unreachable { url: self.url.clone(), error: Box::new(error) };
        let mut request = self.agent.get(&url).query_pairs(pairs(parameters));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(unreachable)?;
        let body =
            response.body_mut().with_config().limit(MOST_BYTES).read_to_string().map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let (url, status) = (self.url.clone(), status.as_u16());
            return Err(ClientError::Refused { url, status, reason: reason(&body) });
        }
        serde_json::from_str(&body).map_err(|error| ClientError::Answer { url: self.url.clone(), error })
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, ClientError> {
    let text = read(path)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<_> = parse_pem(&text).filter_map(certificate).collect();
    if certificates.is_empty() {
        return Err(ClientError::Pem { what: "certificate", path: path.to_owned() });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, ClientError> {
    PrivateKey::from_pem(&read(path)?)
        .map_err(|_not_pem| ClientError::Pem { what: "private key", path: path.to_owned() })
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    fs::read(path).map_err(|source| ClientError::File { path: path.to_owned(), source })
}

/// What the body says, if it says it as agents do.
pub(crate) fn reason(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error")?.as_str());
    error.map_or_else(|| body.chars().take(200).collect(), str::to_owned)
}

/// The parameters that are given.
fn pairs(parameters: &impl Serialize) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(parameters)) = serde_json::to_value(parameters) else {
        return Vec::new();
    };
    let text = |value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    parameters.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        for url in ["", "127.0.0.1:4780", "http://", "ftp://a", "http:///path", "http://a?b"] {
            assert!(
                matches!(Client::new(url, Credentials::default()), Err(ClientError::Address(_))),
                "{url}"
            );
        }
        for url in ["http://127.0.0.1:4780", "https://weir.example/", "http://[::1]:4780"] {
            assert!(Client::new(url, Credentials::default()).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        for url in ["http://weir:hunter2@127.0.0.1:4780", "https://weir:hun/ter2@a", "ftp://hunter2@a"] {
            let said = Client::new(url, Credentials::default()).unwrap_err().to_string();
            assert!(said.contains("no user or password") && !said.contains("ter2"), "{said}");
        }
    }

    #[test]
    fn files_without_certificates_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("empty.pem");
        fs::write(&file, "no certificate").unwrap();
        let given = |credentials| Client::new("https://weir.example", credentials).unwrap_err().to_string();
        let said = given(Credentials { authority: Some(file.clone()), ..Credentials::default() });
        assert!(said.contains("empty.pem: it holds no certificate"), "{said}");
        let said = given(Credentials { identity: Some(("/none".into(), file)), ..Credentials::default() });
        assert_eq!(said, "cannot read /none");
    }

    #[test]
    fn a_token_is_never_shown() {
        let credentials = Credentials { token: Some("hunter2".to_owned()), ..Credentials::default() };
        let shown =
            format!("{credentials:?} {:?}", Client::new("http://[::1]:1", credentials.clone()).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("[::1]"), "{shown}");
    }

    #[test]
    fn what_is_not_given_is_not_sent() {
        let parameters =
            FlowsParameters { limit: Some(5), since: Some("5m".to_owned()), ..FlowsParameters::default() };
        let mut pairs = pairs(&parameters);
        pairs.sort();
        assert_eq!(pairs, [("limit".to_owned(), "5".to_owned()), ("since".to_owned(), "5m".to_owned())]);
    }
}
