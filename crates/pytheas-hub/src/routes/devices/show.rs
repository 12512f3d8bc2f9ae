//! `GET /api/v1/devices/{id}`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{DeviceDetail, DeviceId, ErrorBody};

use crate::{
    app::{App, Shared},
    auth::Viewer,
    reply::ApiResult,
    store::{actions, devices},
    tracebacks,
};

/// Actions shown of one device.
const HISTORY_MAX: u32 = 50;

/// Show a device with its attributes and what happened to it
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceDetail), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Path(id): Path<String>,
) -> ApiResult<Json<DeviceDetail>> {
    Ok(Json(detail(&app, &super::id(&id)?).await?))
}

/// The device with its attributes and what happened to it.
pub(crate) async fn detail(app: &Shared, id: &DeviceId) -> ApiResult<DeviceDetail> {
    let mut history = actions::history(&app.store.read, id, HISTORY_MAX).await?;
    tracebacks::map(app, id, &mut history).await?;
    let mut attributes = devices::attributes(&app.store.read, id).await?;
    tracebacks::map_crashes(app, &mut attributes).await;
    Ok(DeviceDetail {
        device: super::view(app, id).await?,
        attributes,
        history,
    })
}
