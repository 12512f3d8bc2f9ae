//! `GET /api/v1/rollouts`.

use axum::{Json, extract::State};
use pytheas_api::RolloutView;
use serde::Deserialize;

use crate::{
    app::App,
    auth::Viewer,
    reply::{ApiResult, Query},
    store::rollouts,
};

/// Which rollouts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct ListQuery {
    /// Only those before this number.
    before: Option<i64>,
    /// At most so many (default 100, at most 1000).
    limit: Option<u32>,
}

/// List the rollouts, newest first
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts", params(ListQuery),
    responses((status = 200, body = Vec<RolloutView>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<RolloutView>>> {
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let before = query.before.unwrap_or(i64::MAX);
    Ok(Json(rollouts::list(&app.store.read, before, limit).await?))
}
