//! [`ProxyClient`]: asks the control process.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::client::reason;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest answer.
const MOST_BYTES: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ProxyClientError {
    /// Nobody answers at that socket.
    #[error("no control process answers at {}: start one with `weir proxy run`", path.display())]
    Absent {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The socket is not ours to open.
    #[error("cannot open {}: use the account that runs `weir proxy run`, usually root", path.display())]
    Permission {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the control process at {} broke off", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refuses.
    #[error("{reason}")]
    Refused {
        /// Status of HTTP: 4xx if the request is wrong, 5xx if it could not be done.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// What answers speaks something else.
    #[error("what answers at {} is no control process of a version that this one understands", path.display())]
    Answer {
        /// Where.
        path: PathBuf,
    },
}

impl ProxyClientError {
    /// Whether there is no control process at all.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// A client of one control process. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct ProxyClient {
    path: PathBuf,
}

impl ProxyClient {
    /// A client of whoever answers at this socket.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ProxyClientError> {
        self.call("GET", path, None)
    }

    /// Asks for text.
    pub fn text(&self, path: &str) -> Result<String, ProxyClientError> {
        self.exchange("GET", path, None)
    }

    /// Changes something.
    pub fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ProxyClientError> {
        let answer = self.exchange(method, path, body)?;
        serde_json::from_str(&answer).map_err(|_other| ProxyClientError::Answer { path: self.path.clone() })
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, ProxyClientError> {
        let mut stream = UnixStream::connect(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                ProxyClientError::Permission { path: self.path.clone(), source }
            }
            _ => ProxyClientError::Absent { path: self.path.clone(), source },
        })?;
        let broken = |source| ProxyClientError::Broken { path: self.path.clone(), source };
        let answer = converse(&mut stream, method, path, body).map_err(broken)?;
        let wrong = || ProxyClientError::Answer { path: self.path.clone() };
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        if (200..300).contains(&status) {
            return Ok(body.to_owned());
        }
        Err(ProxyClientError::Refused { status, reason: reason(body) })
    }
}

/// HTTP/1.0, so that the answer ends with the connection and never comes in pieces.
fn converse(stream: &mut UnixStream, method: &str, path: &str, body: Option<&Value>) -> io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// A piece of a path: everything but letters, digits and a few signs as `%XX`.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string takes any text");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_at_the_socket_is_told_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let client = ProxyClient::new(&directory.path().join("control.sock"));
        let error = client.text("/v1/status").unwrap_err();
        assert!(error.is_absent() && error.to_string().contains("weir proxy run"), "{error}");
    }

    #[test]
    fn pieces_of_paths_are_escaped() {
        assert_eq!(escaped("[fd00::1]:80"), "%5Bfd00%3A%3A1%5D%3A80");
        assert_eq!(escaped("web-1.a_b"), "web-1.a_b");
    }
}
