//! The description of the interface, made from the same declarations as the answers.

use axum::{Json, extract::State};
use utoipa::OpenApi;

use super::{Answers, ledger, live, metrics, query, status};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "What one agent counts, how it is doing, and what it remembers. It only reads; every answer has a bound."
    ),
    paths(
        status::health,
        status::readiness,
        status::status,
        status::fields,
        status::interfaces,
        status::config,
        ledger::answer,
        live::follow,
        metrics::answer
    ),
    tags(
        (name = "state", description = "How the agent is"),
        (name = "now", description = "What happens now"),
        (name = "catalogue", description = "What can be asked for")
    )
)]
struct Description;

/// The whole description.
pub fn description() -> utoipa::openapi::OpenApi {
    let mut description = Description::openapi();
    description.merge(query::Description::openapi());
    description
}

/// Serves the description.
pub(super) async fn document(State(_answers): State<Answers>) -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
