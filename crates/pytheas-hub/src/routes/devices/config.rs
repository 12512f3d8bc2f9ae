//! `GET /api/v1/devices/{id}/config`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{DeviceConfig, DeviceId, ErrorBody};

use crate::{
    app::{App, Shared},
    auth::Viewer,
    reply::ApiResult,
    store::fleet_config,
};

/// Show what a device is to run with, and what it says it does
#[utoipa::path(get, path = "/api/v1/devices/{id}/config", tag = "devices",
    params(("id" = String, Path)),
    responses((status = 200, body = DeviceConfig), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Path(id): Path<String>,
) -> ApiResult<Json<DeviceConfig>> {
    Ok(Json(view(&app, &super::id(&id)?).await?))
}

/// The device's settings as people see them.
pub(crate) async fn view(app: &Shared, id: &DeviceId) -> ApiResult<DeviceConfig> {
    let found = fleet_config::for_device(&app.store.read, id).await?;
    let found = found.ok_or_else(|| super::unknown(id.as_str()))?;
    Ok(found.view())
}
