//! `GET /api/v1/releases`.

pub(crate) mod in_use;

use axum::{Json, extract::State};
use pytheas_api::{ErrorBody, ReleaseView};

use crate::{app::App, auth::Viewer, reply::ApiResult};

/// List the releases of the verified repository
#[utoipa::path(get, path = "/api/v1/releases", tag = "releases",
    responses((status = 200, body = Vec<ReleaseView>),
        (status = 503, description = "the repository does not verify", body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
) -> ApiResult<Json<Vec<ReleaseView>>> {
    Ok(Json(app.releases.list().await?))
}
