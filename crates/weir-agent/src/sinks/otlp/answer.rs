//! What an answer means: taken, not now, or never (OTLP 1.9, "OTLP/gRPC Response" and "OTLP/HTTP Response").

use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri, header::RETRY_AFTER};
use jiff::{Timestamp, fmt::rfc2822};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use thiserror::Error;
use tonic::{Code, Status};

use super::{headers::HeaderError, tls::TlsError};
use crate::outlet::{BoxError, WriteError};

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was taken, perhaps without some of its entries.
    Taken(Option<(u64, String)>),
    /// It is too large for the collector, but its parts may not be.
    TooLarge(OtlpError),
    /// It will never be taken.
    Never(OtlpError),
    /// It may be taken later.
    NotNow(OtlpError, Option<Duration>),
}

/// Why a request was not taken.
#[derive(Debug, Error)]
pub(super) enum OtlpError {
    /// There is no connection, or it broke.
    #[error("cannot talk to {0}")]
    Unreachable(Uri, #[source] BoxError),
    /// No answer in time.
    #[error("{0} does not answer within {1:?}")]
    Silent(Uri, Duration),
    /// The collector wants to know who we are, or knows it and does not like it.
    #[error("{0} does not let us in: set or correct `headers` or `tls` ({1})")]
    Credentials(Uri, String),
    /// It is busy, or about to end.
    #[error("{0} takes nothing at present ({1})")]
    Busy(Uri, String),
    /// It does not want what it gets.
    #[error("{0} refuses what it gets ({1})")]
    Refused(Uri, String),
    /// It has no such receiver.
    #[error("{0} takes no such data: look at its pipelines and at `endpoint` and `protocol` ({1})")]
    Unknown(Uri, String),
    /// No headers.
    #[error(transparent)]
    Headers(#[from] HeaderError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The agent ends.
    #[error("{0} did not answer before the end")]
    Ending(Uri),
}

/// Longest text of a collector that is passed on.
const LONGEST_TEXT: usize = 300;

impl Answer {
    /// That a request was taken. The answers to all signals have the same shape: a number of entries that were refused,
    /// and a text.
    pub(super) fn taken(response: ExportLogsServiceResponse) -> Self {
        let ExportLogsPartialSuccess { rejected_log_records, error_message } =
            response.partial_success.unwrap_or_default();
        let refused = u64::try_from(rejected_log_records).unwrap_or_default();
        let text = || if error_message.is_empty() { "no reason".to_owned() } else { plain(&error_message) };
        Self::Taken((refused > 0).then(|| (refused, text())))
    }

    /// What an answer by gRPC means that is not OK.
    pub(super) fn of_status(endpoint: &Uri, status: &Status) -> Self {
        let (code, endpoint) = (status.code(), endpoint.clone());
        let text = plain(&format!("{code:?}: {}", status.message()));
        let delay = retry_delay(status.details());
        match code {
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::NotNow(OtlpError::Credentials(endpoint, text), delay)
            }
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Self::NotNow(OtlpError::Busy(endpoint, text), delay),
            Code::ResourceExhausted if delay.is_some() => {
                Self::NotNow(OtlpError::Busy(endpoint, text), delay)
            }
            // The words of grpc-go and others; the code alone could mean a quota.
            Code::ResourceExhausted if status.message().contains("larger than") => {
                Self::TooLarge(OtlpError::Refused(endpoint, text))
            }
            Code::Unimplemented => Self::Never(OtlpError::Unknown(endpoint, text)),
            _ => Self::Never(OtlpError::Refused(endpoint, text)),
        }
    }

    /// What an answer by HTTP means that is not 200.
    pub(super) fn of_http(endpoint: &Uri, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let endpoint = endpoint.clone();
        let text = plain(&format!("{code}: {}", text_of(body)));
        match code {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let delay = retry_after(headers, Timestamp::now());
                Self::NotNow(OtlpError::Busy(endpoint, text), delay)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Self::NotNow(OtlpError::Credentials(endpoint, text), None)
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge(OtlpError::Refused(endpoint, text)),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::Never(OtlpError::Unknown(endpoint, text))
            }
            _ => Self::Never(OtlpError::Refused(endpoint, text)),
        }
    }
}

impl OtlpError {
    /// As the frame of sinks wants it.
    pub(super) fn not_now(self, delay: Option<Duration>) -> WriteError {
        match delay {
            Some(after) => WriteError::RetryAfter { after, reason: self.into() },
            None => WriteError::Retry(self.into()),
        }
    }
}

/// `google.rpc.Status`, as far as it is of interest.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<DurationMessage>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct DurationMessage {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanoseconds: i32,
}

/// How long the details of a status ask to wait.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or_default();
    Some(Duration::new(seconds, u32::try_from(delay.nanoseconds).unwrap_or_default().min(999_999_999)))
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(moment.duration_since(now)).unwrap_or_default())
}

/// The text of an answer by HTTP: a status of gRPC, or plain.
fn text_of(body: &[u8]) -> String {
    match RpcStatus::decode(body) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// Text of somebody else in one line, without whatever a terminal would act upon.
fn plain(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(LONGEST_TEXT)
        .collect();
    line.trim_end_matches([' ', ':']).to_owned()
}

/// Details of a status that ask to wait.
#[cfg(test)]
pub(super) fn with_retry_info(delay: Duration) -> Vec<u8> {
    tests::details(
        "type.googleapis.com/google.rpc.RetryInfo",
        delay.as_secs().try_into().unwrap_or_default(),
        delay.subsec_nanos().try_into().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn details(type_url: &str, seconds: i64, nanoseconds: i32) -> Vec<u8> {
        let delay = Some(DurationMessage { seconds, nanoseconds });
        let value = RetryInfo { delay }.encode_to_vec();
        let other = AnyMessage { type_url: "type.googleapis.com/google.rpc.Help".to_owned(), value: vec![1] };
        let detail = AnyMessage { type_url: type_url.to_owned(), value };
        RpcStatus { message: String::new(), details: vec![other, detail] }.encode_to_vec()
    }

    #[test]
    fn codes_of_grpc_mean_what_the_specification_says() {
        let info = "type.googleapis.com/google.rpc.RetryInfo";
        let cases: [(Status, &str, Option<Duration>); 9] = [
            (Status::unavailable("x"), "not now", None),
            (
                Status::with_details(Code::Unavailable, "x", details(info, 1, 500_000_000).into()),
                "not now",
                Some(Duration::from_millis(1500)),
            ),
            (Status::data_loss("x"), "not now", None),
            (Status::resource_exhausted("quota"), "never", None),
            (
                Status::with_details(Code::ResourceExhausted, "x", details(info, -1, 0).into()),
                "not now",
                Some(Duration::ZERO),
            ),
            (
                Status::resource_exhausted("grpc: received message larger than max (5 vs. 4)"),
                "too large",
                None,
            ),
            (Status::invalid_argument("x"), "never", None),
            (Status::unimplemented("x"), "never", None),
            (Status::unauthenticated("x"), "not now", None),
        ];
        for (status, expect, delay) in cases {
            let text = format!("{status:?}");
            let (found, found_delay) = kind(&Answer::of_status(&Uri::from_static("http://c/"), &status));
            assert_eq!((found, found_delay), (expect, delay), "{text}");
        }
    }

    #[test]
    fn codes_of_http_mean_what_the_specification_says() {
        let cases = [
            (429, "not now"),
            (502, "not now"),
            (503, "not now"),
            (504, "not now"),
            (400, "never"),
            (404, "never"),
            (500, "never"),
            (413, "too large"),
            (401, "not now"),
            (403, "not now"),
        ];
        for (code, expect) in cases {
            let code = StatusCode::from_u16(code).unwrap();
            let answer = Answer::of_http(&Uri::from_static("http://c/"), code, &HeaderMap::new(), b"");
            assert_eq!(kind(&answer).0, expect, "{code}");
        }
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        let cases = [
            ("120", Some(Duration::from_mins(2))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_secs(30))),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
        ];
        for (text, expect) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expect, "{text}");
        }
    }

    #[test]
    fn what_a_collector_says_is_passed_on_in_one_short_line() {
        let status = RpcStatus { message: "no\nroom\u{1b}[1m".to_owned(), details: Vec::new() };
        let answer = Answer::of_http(
            &Uri::from_static("http://c/v1/logs"),
            StatusCode::BAD_REQUEST,
            &HeaderMap::new(),
            &status.encode_to_vec(),
        );
        let Answer::Never(error) = answer else { panic!("{answer:?}") };
        let expect = "http://c/v1/logs refuses what it gets (400 Bad Request: no room [1m)";
        assert_eq!(error.to_string(), expect);
    }

    fn kind(answer: &Answer) -> (&'static str, Option<Duration>) {
        match answer {
            Answer::Taken(_) => ("taken", None),
            Answer::TooLarge(_) => ("too large", None),
            Answer::Never(_) => ("never", None),
            Answer::NotNow(_, delay) => ("not now", *delay),
        }
    }
}
