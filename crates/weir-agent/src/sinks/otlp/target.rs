//! [`Target`]: where one signal goes. What the file says comes first, then the variable of the signal, then that of all
//! signals.

use std::{path::PathBuf, time::Duration};

use http::Uri;

use super::{
    config::{Compression, Document, Protocol, TlsDocument},
    environment::Variables,
    headers::HeaderSource,
};
use crate::config::{At, Problems};

/// Where one signal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address: whole with HTTP, without a path with gRPC.
    pub endpoint: Uri,
    /// How to talk to it.
    pub protocol: Protocol,
    /// Headers of each request.
    pub headers: Vec<HeaderSource>,
    /// How requests are compressed.
    pub compression: Compression,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// TLS.
    pub tls: TlsDocument,
}

/// Shortest and longest wait for an answer, in milliseconds.
const SHORTEST: u64 = 100;
const LONGEST: u64 = 300_000;

impl Target {
    /// Judges what the file and the variables say; `None` goes with problems.
    pub(super) fn of(
        document: &Document,
        headers: &[HeaderSource],
        variables: Variables<'_>,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Self> {
        let protocol = document.protocol.or_else(|| {
            let parse = |text: &str| match text {
                "grpc" => Some(Protocol::Grpc),
                "http/protobuf" => Some(Protocol::Http),
                _ => None,
            };
            read(variables, "PROTOCOL", parse, "must be grpc or http/protobuf", at, problems)
        });
        let compression = document.compression.or_else(|| {
            let parse = |text: &str| match text {
                "gzip" => Some(Compression::Gzip),
                "none" => Some(Compression::None),
                _ => None,
            };
            read(variables, "COMPRESSION", parse, "must be gzip or none", at, problems)
        });
        let timeout = if let Some(text) = &document.timeout {
            let (shortest, longest) = (Duration::from_millis(SHORTEST), Duration::from_millis(LONGEST));
            text.within(shortest, longest, &at.key("timeout"), problems)
        } else {
            let parse = |text: &str| text.parse().ok().filter(|time| (SHORTEST..=LONGEST).contains(time));
            let wanted = "must be a number of milliseconds between 100 and 300000";
            let milliseconds = read(variables, "TIMEOUT", parse, wanted, at, problems);
            Duration::from_millis(milliseconds.unwrap_or(10_000))
        };
        let path = |key: &Option<PathBuf>, what| {
            key.clone().or_else(|| variables.find(what).map(|found| found.value.into()))
        };
        let tls = TlsDocument {
            authority: path(&document.tls.authority, "CERTIFICATE"),
            certificate: path(&document.tls.certificate, "CLIENT_CERTIFICATE"),
            key: path(&document.tls.key, "CLIENT_KEY"),
        };
        let mut headers = headers.to_vec();
        if document.headers.is_empty() {
            headers.extend(variables.find("HEADERS").map(|found| HeaderSource::Variable(found.name)));
        }
        let protocol = protocol.unwrap_or(Protocol::Http);
        let endpoint = endpoint_of(document, protocol, variables, at, problems)?;
        let compression = compression.unwrap_or(Compression::Gzip);
        Some(Self { endpoint, protocol, headers, compression, timeout, tls })
    }
}

/// What a variable says, if it is set and makes sense.
pub(super) fn read<T>(
    variables: Variables<'_>,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
    wanted: &str,
    at: &At,
    problems: &mut Problems,
) -> Option<T> {
    let found = variables.find(what)?;
    let parsed = parse(&found.value).ok_or_else(|| format!("the variable {} {wanted}", found.name));
    problems.take(at, parsed)
}

fn endpoint_of(
    document: &Document,
    protocol: Protocol,
    variables: Variables<'_>,
    at: &At,
    problems: &mut Problems,
) -> Option<Uri> {
    let signal = variables.signal;
    if let Some(text) = &document.endpoint {
        return problems.take(&at.key("endpoint"), endpoint(text, protocol, signal.path()));
    }
    let Some(found) = variables.find("ENDPOINT") else {
        let text = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::Http => "http://localhost:4318",
        };
        return problems.take(at, endpoint(text, protocol, signal.path()));
    };
    // The variable of one signal names the whole address.
    let path = if found.is_of_signal { "" } else { signal.path() };
    let uri = endpoint(&found.value, protocol, path);
    problems.take(at, uri.map_err(|reason| format!("the variable {} {reason}", found.name)))
}

/// An address with this path behind it.
fn endpoint(text: &str, protocol: Protocol, path: &str) -> Result<Uri, String> {
    let wrong = || "is no address such as http://collector:4318".to_owned();
    let uri: Uri = text.parse().map_err(|_wrong| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(wrong());
    }
    // Also behind a slash: a password may have one.
    if text.contains('@') || uri.query().is_some() {
        return Err("must have no user, password or query: use `headers`".to_owned());
    }
    let base = uri.path().trim_end_matches('/');
    let path = match protocol {
        Protocol::Grpc if base.is_empty() => "/".to_owned(),
        Protocol::Grpc => return Err("must have no path with grpc".to_owned()),
        Protocol::Http if path.is_empty() => uri.path().to_owned(),
        Protocol::Http => format!("{base}{path}"),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(path.parse().map_err(|_wrong| wrong())?);
    Uri::from_parts(parts).map_err(|_wrong| wrong())
}

#[cfg(test)]
mod tests {
    use super::{super::Signal, *};

    #[test]
    fn addresses_are_completed_as_the_specification_says() {
        let cases = [
            ("http://collector:4318", Protocol::Http, "/v1/logs", Ok("http://collector:4318/v1/logs")),
            ("https://c/otlp/", Protocol::Http, "/v1/logs", Ok("https://c/otlp/v1/logs")),
            ("http://c:4318/own", Protocol::Http, "", Ok("http://c:4318/own")),
            ("http://c:4318", Protocol::Http, "", Ok("http://c:4318/")),
            ("http://[::1]:4317", Protocol::Grpc, "/v1/logs", Ok("http://[::1]:4317/")),
            ("http://c:4317/x", Protocol::Grpc, "", Err("must have no path with grpc")),
            ("collector:4317", Protocol::Grpc, "", Err("is no address such as http://collector:4318")),
            ("ftp://c", Protocol::Http, "", Err("is no address such as http://collector:4318")),
            (
                "http://weir:hunter2@c",
                Protocol::Http,
                "",
                Err("must have no user, password or query: use `headers`"),
            ),
            (
                "https://weir:12/34@collector:4318",
                Protocol::Http,
                "/v1/logs",
                Err("must have no user, password or query: use `headers`"),
            ),
        ];
        for (text, protocol, path, expect) in cases {
            let found = endpoint(text, protocol, path).map(|uri| uri.to_string());
            assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    fn target(document: &Document, set: &[(&str, &str)], signal: Signal) -> Result<Target, String> {
        let all =
            |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        let mut problems = Problems::default();
        let variables = Variables { all: &all, signal };
        let target =
            Target::of(document, &[], variables, &At::default().key("sinks").index(0), &mut problems);
        if problems.is_empty() { Ok(target.unwrap()) } else { Err(problems.to_string()) }
    }

    #[test]
    fn nothing_said_is_a_collector_on_this_machine() {
        let target = target(&Document::default(), &[], Signal::Logs).unwrap();
        assert_eq!(target.endpoint, "http://localhost:4318/v1/logs");
        assert_eq!(target.protocol, Protocol::Http);
        assert_eq!(target.compression, Compression::Gzip);
        assert_eq!(target.timeout, Duration::from_secs(10));
        assert_eq!(target.headers, []);
    }

    #[test]
    fn variables_say_what_the_file_leaves_open() {
        let set = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://c:2/own"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/certificate"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
        ];
        let document = Document::default();
        let logs = target(&document, &set, Signal::Logs).unwrap();
        assert_eq!(logs.endpoint, "https://c:2/own");
        assert_eq!(logs.headers, [HeaderSource::Variable("OTEL_EXPORTER_OTLP_HEADERS".to_owned())]);
        assert_eq!((logs.compression, logs.timeout), (Compression::None, Duration::from_millis(2500)));
        let path = |path: &str| Some(PathBuf::from(path));
        let tls =
            TlsDocument { authority: path("/ca"), certificate: path("/certificate"), key: path("/key") };
        assert_eq!(logs.tls, tls);
        assert_eq!(target(&document, &set, Signal::Metrics).unwrap().endpoint, "https://c:1/v1/metrics");
        let spans = target(&document, &set, Signal::Spans).unwrap();
        assert_eq!((spans.endpoint, spans.protocol), ("https://c:1/".parse().unwrap(), Protocol::Grpc));
        let said = Document {
            endpoint: Some("http://d:3".to_owned()),
            protocol: Some(Protocol::Http),
            compression: Some(Compression::Gzip),
            timeout: Some("1s".into()),
            ..Document::default()
        };
        let spans = target(&said, &set, Signal::Spans).unwrap();
        assert_eq!(spans.endpoint, "http://d:3/v1/traces");
        assert_eq!((spans.compression, spans.timeout), (Compression::Gzip, Duration::from_secs(1)));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_a_problem() {
        let cases = [
            ("PROTOCOL", "http/json", "must be grpc or http/protobuf"),
            ("COMPRESSION", "zstd", "must be gzip or none"),
            ("TIMEOUT", "10s", "must be a number of milliseconds between 100 and 300000"),
            ("ENDPOINT", "collector:4317", "is no address such as http://collector:4318"),
        ];
        for (what, value, expect) in cases {
            let name = format!("OTEL_EXPORTER_OTLP_{what}");
            let found = target(&Document::default(), &[(name.as_str(), value)], Signal::Logs);
            assert_eq!(found, Err(format!("sinks[0]: the variable {name} {expect}")));
        }
    }
}
