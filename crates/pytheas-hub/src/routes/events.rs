//! `GET /api/v1/events` (tokens) and `GET /events` (sessions): what happens, as Server-Sent Events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event as Frame, KeepAlive, Sse},
};
use futures::{Stream, stream};
use pytheas_api::{Event, EventKind};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    app::{App, stopped},
    auth::{Session, Viewer},
};

/// What happens from now on
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    responses((status = 200, description = "one event per `data:` line", body = Event,
        content_type = "text/event-stream")),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    answer(app)
}

/// The same for the dashboard.
pub(crate) async fn for_session(
    State(app): State<App>,
    _session: Session,
) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    answer(app)
}

/// How long one answer goes on. Browsers and clients ask again by themselves, and have to show
/// anew that they still may.
const LIFETIME: Duration = Duration::from_secs(600);

fn answer(app: App) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    let receiver = app.bus.subscribe();
    let stopping = app.stopping.clone();
    let ends = tokio::time::Instant::now() + LIFETIME;
    let stream = stream::unfold(
        (app, receiver, stopping),
        move |(app, mut receiver, mut stopping)| async move {
            let event = tokio::select! {
                () = stopped(&mut stopping) => return None,
                () = tokio::time::sleep_until(ends) => return None,
                event = receiver.recv() => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(count)) => Event {
                    id: 0,
                    at_ms: app.now_ms(),
                    kind: EventKind::Missed { count },
                },
            };
            let frame = Frame::default()
                .id(event.id.to_string())
                .data(serde_json::to_string(&event).unwrap_or_default());
            Some((Ok(frame), (app, receiver, stopping)))
        },
    );
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}
