//! `POST /api/v1/devices/{id}/accept`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{DeviceId, DeviceView, ErrorBody, EventKind};

use crate::{
    app::{App, Shared},
    auth::Operator,
    reply::ApiResult,
    store::{audit, devices},
};

/// Accept a device that asked; once more does nothing
#[utoipa::path(post, path = "/api/v1/devices/{id}/accept", tag = "devices",
    params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
) -> ApiResult<Json<DeviceView>> {
    let id = super::id(&id)?;
    accept(&app, &id, &person.name).await?;
    Ok(Json(super::view(&app, &id).await?))
}

/// Accepts the device, unless it is.
pub(crate) async fn accept(app: &Shared, id: &DeviceId, actor: &str) -> ApiResult<()> {
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    if devices::accept(&mut tx, id, now_ms).await? {
        audit::note(&mut tx, now_ms, actor, "device.accept", id.as_str(), "").await?;
        tx.commit().await?;
        app.bus
            .publish(EventKind::DeviceAccepted { device: id.clone() });
    }
    Ok(())
}
