//! `GET /api/v1/traffic`.

use axum::{Json, extract::State};
use pytheas_api::TrafficReport;
use serde::Deserialize;

use crate::{
    app::App,
    auth::Viewer,
    reply::{ApiResult, Query},
};

/// Whose traffic.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct TrafficQuery {
    /// Only this device's.
    device: Option<String>,
}

/// Bytes moved so far, by kind and device; they only grow
#[utoipa::path(get, path = "/api/v1/traffic", tag = "traffic", params(TrafficQuery),
    responses((status = 200, body = TrafficReport)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Query(query): Query<TrafficQuery>,
) -> ApiResult<Json<TrafficReport>> {
    let device = query
        .device
        .as_deref()
        .map(super::devices::id)
        .transpose()?;
    Ok(Json(app.traffic.report(device.as_ref(), app.now_ms())))
}
