//! `GET /api/v1/config/history`.

use axum::{Json, extract::State};
use pytheas_api::{ConfigLayer, ConfigRevision};
use serde::Deserialize;

use crate::{
    app::App,
    auth::Viewer,
    reply::{ApiResult, Query},
    store::fleet_config,
};

/// Which revisions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct HistoryQuery {
    /// Only those of this layer: `all`, `group:NAME`, `device:ID`.
    #[param(value_type = Option<String>)]
    layer: Option<ConfigLayer>,
    /// Only those before this number.
    before: Option<i64>,
    /// At most so many (default 100, at most 1000).
    limit: Option<u32>,
}

/// List the changes of settings, newest first
#[utoipa::path(get, path = "/api/v1/config/history", tag = "config", params(HistoryQuery),
    responses((status = 200, body = Vec<ConfigRevision>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Query(query): Query<HistoryQuery>,
) -> ApiResult<Json<Vec<ConfigRevision>>> {
    let before = query.before.unwrap_or(i64::MAX);
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let layer = query.layer.as_ref();
    let found = fleet_config::history(&app.store.read, layer, before, limit).await?;
    Ok(Json(found))
}
