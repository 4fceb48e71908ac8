//! `GET /api/v1/live`: the live view as server-sent events, one `flows` event an interval.
//!
//! The identifier of an event is that of this run of the agent and the number of the frame. A client that comes back
//! with `Last-Event-ID` gets what it missed as far as it is still there, after a `gap` event that says how much is not.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Answers, guard::problem};
use crate::view::{HEARTBEAT, View};

/// A client that follows.
struct Follower {
    view: Arc<View>,
    newest: watch::Receiver<u64>,
    is_ending: watch::Receiver<bool>,
    /// Tells this run of the agent from others.
    run: String,
    known: u64,
    /// A frame that comes after a gap that was just told.
    held: Option<Arc<crate::view::Frame>>,
    _place: OwnedSemaphorePermit,
}

/// Follows the live view.
#[utoipa::path(
    get,
    path = "/api/v1/live",
    tag = "now",
    params(("Last-Event-ID" = Option<String>, Header, description = "Identifier of the last event that the client has")),
    responses(
        (status = 200, description = "Server-sent events: `flows` with a frame, `gap` with the number of frames lost",
         content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many clients follow", body = weir_api::catalog::Problem),
    )
)]
pub(super) async fn follow(State(answers): State<Answers>, headers: HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&answers.followers).try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many clients follow: try again later");
    };
    let run = format!("{:x}", answers.started.0);
    let resumed =
        headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| resume(id, &run));
    // A new client begins with the newest frame, so that it has something to show.
    let known = resumed.unwrap_or_else(|| answers.view.newest().saturating_sub(1));
    let follower = Follower {
        newest: answers.view.follow(),
        view: answers.view,
        is_ending: answers.is_ending,
        run,
        known,
        held: None,
        _place: place,
    };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// The number of the frame, if the identifier is one of this run.
fn resume(id: &str, run: &str) -> Option<u64> {
    let (of_run, number) = id.split_once('-')?;
    (of_run == run).then(|| number.parse().ok())?
}

impl Follower {
    /// Waits for the next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if *self.is_ending.borrow() {
                return None;
            }
            if let Some(frame) = self.held.take() {
                self.known = frame.number;
                let id = format!("{}-{}", self.run, frame.number);
                return Some(Event::default().event("flows").id(id).data(&frame.json));
            }
            self.newest.borrow_and_update();
            if let Some(next) = self.view.next(self.known) {
                self.held = Some(next.frame);
                if next.lost > 0 {
                    return Some(Event::default().event("gap").data(format!(r#"{{"lost":{}}}"#, next.lost)));
                }
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                _ = self.is_ending.wait_for(|is_ending| *is_ending) => return None,
            }
        }
    }
}
