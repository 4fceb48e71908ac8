//! What the control socket answers. Paths and bodies are listed in `docs/operate/proxy.md`.
//!
//! What only reads is GET. Everything runs on the thread that owns the proxy, one request after the other.

use std::net::IpAddr;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_api::proxy::ProxyStatus;
use weir_datapath::redirect::RedirectError;

use super::{
    metrics,
    owner::{Ending, Owner},
    proxy::{ChangeError, Proxy},
    rules::Rules,
    text::{TextError, parse_backend_address, parse_tuple},
    trace::trace,
    view::{Book, ConnectionsWanted, interface_view, sockets_view},
};
use crate::{causes::with_causes, server::problem};

/// Largest body: a rules file with tens of thousands of rules.
const MOST_BYTES: usize = 32 << 20;

/// Connections in one answer, if nothing else is asked for.
const CONNECTIONS: usize = 1000;

/// Every route.
pub(super) fn routes(owner: Owner) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/rules", get(rules))
        .route("/v1/rules/{name}", put(put_rule).delete(remove_rule))
        .route("/v1/rules/{name}/drain", post(drain_rule))
        .route("/v1/rules/{name}/backends/{address}/drain", post(drain_backend))
        .route("/v1/rules/{name}/backends/{address}/weight", post(weigh_backend))
        .route("/v1/apply", post(apply))
        .route("/v1/connections", get(connections))
        .route("/v1/stats", get(stats))
        .route("/v1/trace", get(trace_answer))
        .route("/v1/stop", post(stop))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(owner.clone())
        .merge(metrics_only(owner))
}

/// What everybody may read who reaches the address.
pub(super) fn metrics_only(owner: Owner) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(owner)
}

/// Why there is no answer.
enum Failure {
    Change(ChangeError),
    Datapath(RedirectError),
    Text(TextError),
    Ending(Ending),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Change(error @ (ChangeError::NoRule { .. } | ChangeError::NoBackend { .. })) => {
                (StatusCode::NOT_FOUND, with_causes(&error))
            }
            Self::Change(error) if error.is_usage() => (StatusCode::BAD_REQUEST, with_causes(&error)),
            Self::Change(error) => (StatusCode::INTERNAL_SERVER_ERROR, with_causes(&error)),
            Self::Datapath(error) => (StatusCode::INTERNAL_SERVER_ERROR, with_causes(&error)),
            Self::Text(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Ending(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        problem(status, &text)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<RedirectError> for Failure {
    fn from(error: RedirectError) -> Self {
        Self::Datapath(error)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl From<Ending> for Failure {
    fn from(error: Ending) -> Self {
        Self::Ending(error)
    }
}

type Answer<T> = Result<Json<T>, Failure>;

async fn ask<T, E>(
    owner: &Owner,
    work: impl FnOnce(&mut Proxy) -> Result<T, E> + Send + 'static,
) -> Result<T, Failure>
where
    T: Serialize + Send + 'static,
    E: Send + 'static,
    Failure: From<E>,
{
    Ok(owner.ask(work).await??)
}

async fn status(State(owner): State<Owner>) -> Answer<ProxyStatus> {
    let status = ask(&owner, |proxy| -> Result<_, RedirectError> {
        let counters = proxy.datapath.counters()?;
        Ok(ProxyStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: proxy.started.elapsed().as_secs_f64(),
            interfaces: proxy.datapath.places().iter().map(interface_view).collect(),
            sockets: sockets_view(&proxy.datapath),
            rules: proxy.engine.rules().len(),
            connections: counters.connections,
            capacity: counters.capacity,
            file: proxy.file.as_ref().map(|path| path.display().to_string()),
            file_trouble: proxy.file_trouble.clone(),
            trouble: proxy.trouble(),
        })
    });
    Ok(Json(status.await?))
}

impl Proxy {
    /// Names and datapath.
    pub(super) fn book(&self) -> Book<'_> {
        Book {
            datapath: &self.datapath,
            engine: &self.engine,
            written: &self.written,
            services: &self.services,
            sources: &self.sources,
        }
    }
}

async fn rules(State(owner): State<Owner>) -> Answer<impl Serialize> {
    Ok(Json(ask(&owner, |proxy| proxy.book().rules()).await?))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DryRun {
    dry_run: bool,
}

async fn put_rule(
    State(owner): State<Owner>,
    Path(name): Path<String>,
    Query(DryRun { dry_run }): Query<DryRun>,
    Json(document): Json<Value>,
) -> Answer<impl Serialize> {
    Ok(Json(ask(&owner, move |proxy| proxy.put_rule(&name, document, dry_run)).await?))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Removal {
    now: bool,
}

async fn remove_rule(
    State(owner): State<Owner>,
    Path(name): Path<String>,
    Query(Removal { now }): Query<Removal>,
) -> Answer<impl Serialize> {
    Ok(Json(ask(&owner, move |proxy| proxy.remove_rule(&name, now)).await?))
}

#[derive(Deserialize)]
struct Drain {
    drain: bool,
}

#[derive(Deserialize)]
struct Weight {
    #[serde(deserialize_with = "weight")]
    weight: u16,
}

fn weight<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = u64::deserialize(deserializer)?;
    super::text::parse_weight(&number.to_string()).map_err(serde::de::Error::custom)
}

async fn drain_rule(
    State(owner): State<Owner>,
    Path(name): Path<String>,
    Json(Drain { drain }): Json<Drain>,
) -> Answer<impl Serialize> {
    ask(&owner, move |proxy| proxy.drain_rule(&name, drain)).await?;
    Ok(Json(json!({})))
}

async fn drain_backend(
    State(owner): State<Owner>,
    Path((name, address)): Path<(String, String)>,
    Json(Drain { drain }): Json<Drain>,
) -> Answer<impl Serialize> {
    let target = Proxy::target(&name, parse_backend_address(&address)?);
    ask(&owner, move |proxy| proxy.drain_backend(&target, drain)).await?;
    Ok(Json(json!({})))
}

async fn weigh_backend(
    State(owner): State<Owner>,
    Path((name, address)): Path<(String, String)>,
    Json(Weight { weight }): Json<Weight>,
) -> Answer<impl Serialize> {
    let target = Proxy::target(&name, parse_backend_address(&address)?);
    ask(&owner, move |proxy| proxy.weigh_backend(&target, weight)).await?;
    Ok(Json(json!({})))
}

async fn apply(
    State(owner): State<Owner>,
    Query(DryRun { dry_run }): Query<DryRun>,
    Json(tree): Json<Value>,
) -> Answer<impl Serialize> {
    // Judging is work that no packet and no other request has to wait for.
    let rules = Rules::of_tree(tree).map_err(ChangeError::Rules)?;
    Ok(Json(ask(&owner, move |proxy| proxy.apply(rules, dry_run)).await?))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Connections {
    rule: Option<String>,
    client: Option<IpAddr>,
    limit: Option<usize>,
}

async fn connections(
    State(owner): State<Owner>,
    Query(Connections { rule, client, limit }): Query<Connections>,
) -> Answer<impl Serialize> {
    let wanted = ConnectionsWanted { rule, client, limit: limit.unwrap_or(CONNECTIONS) };
    Ok(Json(ask(&owner, move |proxy| proxy.book().connections(&wanted)).await?))
}

async fn stats(State(owner): State<Owner>) -> Answer<impl Serialize> {
    Ok(Json(ask(&owner, |proxy| proxy.book().stats()).await?))
}

#[derive(Deserialize)]
struct Trace {
    connection: String,
}

async fn trace_answer(
    State(owner): State<Owner>,
    Query(Trace { connection }): Query<Trace>,
) -> Answer<impl Serialize> {
    let tuple = parse_tuple(&connection)?;
    Ok(Json(ask(&owner, move |proxy| trace(&proxy.book(), &tuple)).await?))
}

async fn stop(State(owner): State<Owner>) -> Answer<impl Serialize> {
    owner.tell(Proxy::stop).await?;
    Ok(Json(json!({})))
}

async fn metrics_text(State(owner): State<Owner>) -> Result<Response, Failure> {
    let text = ask(&owner, |proxy| -> Result<_, RedirectError> {
        let book = proxy.book();
        Ok(metrics::text(&book.rules()?, &book.stats()?))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.await?).into_response())
}
