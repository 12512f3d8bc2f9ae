//! `GET /api/v1/rollouts/{id}`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{ErrorBody, RolloutDetail};

use crate::{app::App, auth::Viewer, reply::ApiResult};

/// Show a rollout with its devices
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "rollouts", params(("id" = i64, Path)),
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Path(id): Path<String>,
) -> ApiResult<Json<RolloutDetail>> {
    Ok(Json(super::detail(&app, super::id(&id)?).await?))
}
