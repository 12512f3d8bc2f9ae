//! `GET /api/v1/audit`.

use axum::{Json, extract::State};
use pytheas_api::AuditEntry;
use serde::Deserialize;

use crate::{
    app::App,
    auth::Admin,
    reply::{ApiResult, Query},
    store::audit,
};

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct ListQuery {
    /// Only those before this number.
    before: Option<i64>,
    /// At most so many (default 100, at most 1000).
    limit: Option<u32>,
}

/// List who changed what, newest first
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListQuery),
    responses((status = 200, body = Vec<AuditEntry>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _admin: Admin,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<AuditEntry>>> {
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    Ok(Json(
        audit::list(&app.store.read, query.before.unwrap_or(i64::MAX), limit).await?,
    ))
}
