//! `GET /api/v1/artifacts`.

use axum::{Json, extract::State};
use pytheas_api::ArtifactModule;

use crate::{app::App, auth::Viewer, reply::ApiResult, store::modules};

/// List the uploaded artifacts
#[utoipa::path(get, path = "/api/v1/artifacts", tag = "artifacts",
    responses((status = 200, body = Vec<ArtifactModule>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
) -> ApiResult<Json<Vec<ArtifactModule>>> {
    Ok(Json(modules::artifacts(&app.store.read).await?))
}
