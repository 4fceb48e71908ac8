//! What the agent remembers, over HTTP: `GET /api/v1/{flows,edges,nodes,series,hints}`.
//!
//! Parameters that make no sense are answered with 400, which parameter, and what to do. Answers have a limit of rows,
//! of time for reading, and a few are made at a time, because each may take some tens of megabytes; whoever waits too long
//! gets 503. An answer that was cut says so.

mod answers;
mod nodes;
mod parameters;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use weir_api::{
    catalog::Problem,
    history::{
        BadParameter, EdgesAnswer, EdgesParameters, FlowsAnswer, FlowsParameters, HintsAnswer,
        HintsParameters, NodesAnswer, SeriesAnswer, SeriesParameters,
    },
};
use weir_flow::Wall;

pub use self::answers::flows as flows_answer;
use self::parameters::Parameters;
use super::snapshot::now;
use crate::store::{Store, StoreError};

/// Questions that are answered at a time.
const MOST_QUESTIONS: usize = 2;

/// Longest time that a question waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Longest time for reading raw flows.
const LONGEST_READ: Duration = Duration::from_secs(10);

/// What the handlers share.
#[derive(Clone)]
struct Asked {
    store: Arc<dyn Store>,
    turns: Arc<Semaphore>,
}

/// Parameters as they come.
type Pairs = Query<Vec<(String, String)>>;

/// The routes, whole paths.
pub fn routes(store: Arc<dyn Store>) -> Router {
    let asked = Asked { store, turns: Arc::new(Semaphore::new(MOST_QUESTIONS)) };
    Router::new()
        .route("/api/v1/flows", get(flows))
        .route("/api/v1/edges", get(edges))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/series", get(series))
        .route("/api/v1/hints", get(hints))
        .with_state(asked)
}

/// Serves these routes and nothing else, to whoever can reach the listener: for tests of clients.
#[cfg(feature = "conformance")]
pub async fn serve(listener: tokio::net::TcpListener, store: Arc<dyn Store>) -> std::io::Result<()> {
    axum::serve(listener, routes(store)).await
}

/// The description of these routes.
#[derive(OpenApi)]
#[openapi(
    paths(flows, edges, nodes, series, hints),
    tags((name = "history", description = "What the agent remembers"))
)]
pub struct Description;

/// Flows, or groups of them, the most bytes first.
#[utoipa::path(
    get,
    path = "/api/v1/flows",
    tag = "history",
    params(FlowsParameters),
    responses(
        (status = 200, description = "Flows or groups", body = FlowsAnswer),
        (status = 400, description = "A parameter makes no sense", body = BadParameter),
        (status = 503, description = "Too many questions at a time", body = Problem)
    )
)]
async fn flows(State(asked): State<Asked>, Query(pairs): Pairs) -> Response {
    asked
        .answer(pairs, |store, parameters, now| {
            let query = parameters.flows(now, LONGEST_READ)?;
            Ok(answers::flows(&store.flows(&query)?, &query.group_by))
        })
        .await
}

/// The service map: who talked to whom, the most bytes first.
#[utoipa::path(
    get,
    path = "/api/v1/edges",
    tag = "history",
    params(EdgesParameters),
    responses(
        (status = 200, description = "Edges", body = EdgesAnswer),
        (status = 400, description = "A parameter makes no sense", body = BadParameter),
        (status = 503, description = "Too many questions at a time", body = Problem)
    )
)]
async fn edges(State(asked): State<Asked>, Query(pairs): Pairs) -> Response {
    asked
        .answer(pairs, |store, parameters, now| {
            Ok(answers::edges(&store.edges(&parameters.edges(now, LONGEST_READ)?)?))
        })
        .await
}

/// The ends of the service map, each with the sums of its edges, the most bytes first.
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    tag = "history",
    params(EdgesParameters),
    responses(
        (status = 200, description = "Nodes", body = NodesAnswer),
        (status = 400, description = "A parameter makes no sense", body = BadParameter),
        (status = 503, description = "Too many questions at a time", body = Problem)
    )
)]
async fn nodes(State(asked): State<Asked>, Query(pairs): Pairs) -> Response {
    asked
        .answer(pairs, |store, parameters, now| {
            let (query, rows) = parameters.nodes(now, LONGEST_READ)?;
            Ok(nodes::nodes(&store.edges(&query)?, rows))
        })
        .await
}

/// How much, over time.
#[utoipa::path(
    get,
    path = "/api/v1/series",
    tag = "history",
    params(SeriesParameters),
    responses(
        (status = 200, description = "Courses", body = SeriesAnswer),
        (status = 400, description = "A parameter makes no sense", body = BadParameter),
        (status = 503, description = "Too many questions at a time", body = Problem)
    )
)]
async fn series(State(asked): State<Asked>, Query(pairs): Pairs) -> Response {
    asked
        .answer(pairs, |store, parameters, now| {
            Ok(answers::series(&store.series(&parameters.series(now, LONGEST_READ)?)?))
        })
        .await
}

/// Values that a field had, the most bytes first: for completing what somebody types.
#[utoipa::path(
    get,
    path = "/api/v1/hints",
    tag = "history",
    params(HintsParameters),
    responses(
        (status = 200, description = "Values", body = HintsAnswer),
        (status = 400, description = "A parameter makes no sense", body = BadParameter),
        (status = 503, description = "Too many questions at a time", body = Problem)
    )
)]
async fn hints(State(asked): State<Asked>, Query(pairs): Pairs) -> Response {
    asked
        .answer(pairs, |store, parameters, now| {
            let query = parameters.hints(now, LONGEST_READ)?;
            Ok(answers::hints(&store.hints(&query)?, query.field))
        })
        .await
}

/// Why there is no answer.
enum Refusal {
    Parameter(BadParameter),
    Store(StoreError),
}

impl From<BadParameter> for Refusal {
    fn from(parameter: BadParameter) -> Self {
        Self::Parameter(parameter)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Asked {
    /// Waits for a turn and answers on a thread that may block.
    async fn answer<T: Serialize + Send + 'static>(
        self,
        pairs: Vec<(String, String)>,
        answer: impl FnOnce(&dyn Store, &mut Parameters, Wall) -> Result<T, Refusal> + Send + 'static,
    ) -> Response {
        let turn = tokio::time::timeout(LONGEST_WAIT, self.turns.acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            let text = "too many questions at a time: try again";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        let answered = tokio::task::spawn_blocking(move || {
            let answered = answer(&*self.store, &mut Parameters::new(pairs), now());
            drop(turn);
            answered
        });
        match answered.await {
            Ok(Ok(answer)) => Json(answer).into_response(),
            Ok(Err(Refusal::Parameter(bad))) => (StatusCode::BAD_REQUEST, Json(bad)).into_response(),
            Ok(Err(Refusal::Store(error))) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let text = format!("{error}{}", cause.unwrap_or_default());
                problem(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            Err(_panicked) => problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "making the answer failed: please report it".to_owned(),
            ),
        }
    }
}

fn problem(status: StatusCode, error: String) -> Response {
    (status, Json(Problem { error })).into_response()
}
