//! `GET /healthz`: whether the hub can do its work, which is reading and writing its database.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::app::App;

/// Whether the hub can do its work
#[utoipa::path(get, path = "/healthz", tag = "hub",
    responses((status = 200, description = "it can"), (status = 503, description = "it cannot")))]
pub(crate) async fn handle(State(app): State<App>) -> Response {
    match app.store.begin().await {
        Ok(tx) => match tx.rollback().await {
            Ok(()) => "ok\n".into_response(),
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &sqlx::Error) -> Response {
    tracing::error!(%error, "the database does not answer");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the database does not answer\n",
    )
        .into_response()
}
