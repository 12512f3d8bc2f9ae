//! `PUT /api/v1/devices/{id}/group`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{DeviceGroup, DeviceView, ErrorBody, EventKind, Group};

use crate::{
    app::App,
    auth::Operator,
    reply::{ApiResult, Body},
    store::{audit, devices},
};

/// Put a device into a group, whose settings it gets, or out of any
#[utoipa::path(put, path = "/api/v1/devices/{id}/group", tag = "devices",
    params(("id" = String, Path)), request_body = DeviceGroup,
    responses((status = 200, body = DeviceView), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
    Body(wanted): Body<DeviceGroup>,
) -> ApiResult<Json<DeviceView>> {
    let id = super::id(&id)?;
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    if !devices::set_group(&mut tx, &id, wanted.group.as_ref()).await? {
        return Err(super::unknown(id.as_str()));
    }
    let group = wanted.group.as_ref().map_or("", Group::as_str);
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "device.group",
        id.as_str(),
        group,
    )
    .await?;
    tx.commit().await?;
    app.bus
        .publish(EventKind::DeviceChanged { device: id.clone() });
    Ok(Json(super::view(&app, &id).await?))
}
