//! `POST /api/v1/devices`: a device that does not enrol by itself.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{DEFAULT_TENANT, DeviceRequest, DeviceToken, ErrorBody, EventKind};
use pytheas_release::Platform;

use crate::{
    app::App,
    auth::Operator,
    reply::{ApiError, ApiResult, Body, printable},
    secret,
    store::{audit, devices},
};

/// Make a device, accepted, with its token
#[utoipa::path(post, path = "/api/v1/devices", tag = "devices", request_body = DeviceRequest,
    responses((status = 201, body = DeviceToken), (status = 409, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Body(request): Body<DeviceRequest>,
) -> ApiResult<(StatusCode, Json<DeviceToken>)> {
    if let Some(platform) = &request.platform {
        platform
            .parse::<Platform>()
            .map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let id = &request.device_id;
    let token = secret::new("").map_err(|error| ApiError::internal(&error))?;
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    if devices::credentials(&mut *tx, id).await?.is_some() {
        let message = format!("there is a device `{id}` already");
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "device-exists",
            message,
        ));
    }
    let name = match request.name.as_deref().unwrap_or_default() {
        "" => id.as_str(),
        name => printable("device", name)?,
    };
    let platform = request.platform.as_deref();
    devices::add(&mut tx, id, name, platform, None, Some(now_ms), now_ms).await?;
    devices::set_token(&mut tx, id, Some(secret::hash(&token)), None).await?;
    if request.group.is_some() {
        devices::set_group(&mut tx, id, request.group.as_ref()).await?;
    }
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "device.create",
        id.as_str(),
        "",
    )
    .await?;
    tx.commit().await?;
    app.bus
        .publish(EventKind::DeviceEnrolled { device: id.clone() });
    let device = super::view(&app, id).await?;
    let tenant = DEFAULT_TENANT.to_owned();
    Ok((
        StatusCode::CREATED,
        Json(DeviceToken {
            device,
            token,
            tenant,
        }),
    ))
}
