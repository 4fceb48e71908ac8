//! The root page, in words and without a script, and the answer to paths that do not exist.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::StatusCode,
    response::{Html, Response},
};

use super::{Answers, guard::problem, snapshot::Snapshot, status::of_snapshot};

/// Says what the agent does.
pub(super) async fn root(State(answers): State<Answers>) -> Html<String> {
    let status = of_snapshot(&answers, &Snapshot::take(&answers));
    let mut page = String::from(include_str!("page.html"));
    let mut rows = String::new();
    for consumer in &status.consumers {
        let state = consumer.trouble.as_deref().unwrap_or("works");
        let [name, state] = [&*consumer.name, state].map(escaped);
        let (delivered, dropped) = (consumer.delivered_records, consumer.dropped_records);
        let waiting = consumer.waiting_records;
        write!(rows, "<tr><td>{name}<td>{delivered}<td>{waiting}<td>{dropped}<td>{state}")
            .expect("a string takes any text");
    }
    for (mark, text) in [
        ("{summary}", escaped(&status.summary)),
        ("{version}", escaped(&status.version)),
        ("{consumers}", rows),
    ] {
        page = page.replace(mark, &text);
    }
    Html(page)
}

/// There is no such path.
pub(super) async fn nothing() -> Response {
    problem(StatusCode::NOT_FOUND, "there is no such path: see /api/v1/openapi.json")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
