//! `GET /metrics`: the agent's own counters for Prometheus, in its text format (version 0.0.4).
//!
//! Everything is read at the moment of the request from the same snapshot as the ledger. Each name is declared once, in
//! the table, from which the reference page is made.

mod edges;
mod gather;
mod table;
mod text;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Answers, snapshot::Snapshot};

/// The reference page of all metrics, in Markdown.
pub fn reference() -> String {
    table::page()
}

/// Counters of the agent.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "state",
    responses((status = 200, description = "Counters in the text format of Prometheus", content_type = "text/plain", body = String))
)]
pub(super) async fn answer(State(answers): State<Answers>) -> Response {
    let text = gather::all(&answers, &Snapshot::take(&answers));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
