//! Who may ask, and how: looked at before any route is.
//!
//! - Only GET and HEAD.
//! - The host that the client asked for must be one of ours. A page of another site that makes its own name point here
//!   (DNS rebinding) would otherwise read everything that loopback is trusted with.
//! - A request that a browser makes on behalf of another site is refused; there is no CORS.
//! - With a token, every request over TCP needs it, except for `/healthz` and `/readyz`, which tell nothing.
//! - No more than so many requests at a time; those that follow the live view have a limit of their own.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::sync::Semaphore;
use weir_api::catalog::Problem;

use super::Tokens;

/// Requests at a time.
const MOST_REQUESTS: usize = 64;

/// What a listener asks of requests.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) tokens: Arc<Tokens>,
    /// Names of hosts by which clients may call, besides addresses and `localhost`; in lower case.
    pub(crate) names: Arc<[String]>,
    pub(crate) transport: Transport,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) refusals: Arc<Refusals>,
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Http,
    Https,
    /// The rights of the socket say who may ask.
    Unix,
}

/// Requests that were refused, by reason.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Method,
    Host,
    Origin,
    Token,
    Busy,
}

impl Refusal {
    pub(super) const ALL: [Self; 5] = [Self::Method, Self::Host, Self::Origin, Self::Token, Self::Busy];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Busy => "busy",
        }
    }

    fn response(self) -> Response {
        let (status, text) = match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: this interface only reads"),
            Self::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the host that was asked for: call it by address or localhost, or add the name to server.names",
            ),
            Self::Origin => (StatusCode::FORBIDDEN, "requests on behalf of another site are refused"),
            Self::Token => (StatusCode::UNAUTHORIZED, "needs the header `Authorization: Bearer TOKEN`"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time: try again"),
        };
        let mut response = problem(status, text);
        let extra = match self {
            Self::Method => Some((header::ALLOW, "GET, HEAD")),
            Self::Token => Some((header::WWW_AUTHENTICATE, "Bearer")),
            Self::Busy => Some((header::RETRY_AFTER, "1")),
            Self::Host | Self::Origin => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Refusals {
    pub(super) fn count(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }
}

impl Guard {
    pub(crate) fn requests() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MOST_REQUESTS))
    }

    /// Why the request is refused, if it is.
    pub(super) fn judge(&self, request: &Request) -> Option<Refusal> {
        let headers = request.headers();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(Refusal::Method);
        }
        if self.transport == Transport::Unix {
            return None;
        }
        let host = host(request);
        if !host.is_some_and(|host| self.is_ours(host)) {
            return Some(Refusal::Host);
        }
        if !is_same_site(headers, host, self.transport) {
            return Some(Refusal::Origin);
        }
        let is_open = matches!(request.uri().path(), "/healthz" | "/readyz");
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        (!is_open && !self.tokens.admit(authorization)).then_some(Refusal::Token)
    }

    /// Whether a host with or without port is an address, `localhost`, or one of the names. Rebinding needs a name.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.contains(&name)
    }
}

/// Looks at each request before the routes do, and at each answer after them.
pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.judge(&request) {
        Some(refusal) => guard.refuse(refusal),
        // Those who follow hold their request for hours and have a limit of their own.
        None if request.uri().path() == "/api/v1/live" => next.run(request).await,
        None => match guard.requests.try_acquire() {
            Ok(_permit) => next.run(request).await,
            Err(_) => guard.refuse(Refusal::Busy),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

impl Guard {
    fn refuse(&self, refusal: Refusal) -> Response {
        self.refusals.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
        refusal.response()
    }
}

/// Sent with every answer.
const SECURITY_HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// An answer that says what is wrong.
pub(crate) fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(Problem { error: text.to_owned() })).into_response()
}

/// The host that the client means: of the target, if that has one (RFC 9112 section 3.2.2), else the header, of which
/// there must be one only.
fn host(request: &Request) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether no browser says that another site is behind the request. Links that people click are no such request.
fn is_same_site(headers: &HeaderMap, host: Option<&str>, transport: Transport) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site") == Some("cross-site") && text("sec-fetch-mode") != Some("navigate") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let scheme = if transport == Transport::Https { "https" } else { "http" };
    origin.to_str().ok().zip(host).is_some_and(|(origin, host)| origin == format!("{scheme}://{host}"))
}
