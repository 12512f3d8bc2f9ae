//! `PATCH` and `PUT /api/v1/config`.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{
    ConfigChange, ConfigLayer, ConfigRevision, ErrorBody, EventKind, SETTINGS_DEPTH_MAX, Settings,
    merge_patch, within_depth,
};

use crate::{
    app::{App, Shared},
    auth::Operator,
    fleet_config::LAYER_MAX,
    reply::{ApiError, ApiResult, Body, printable},
    store::{Tx, devices, fleet_config},
};

/// Merge into layers of settings (RFC 7396); answers what changed, and nothing changes when any
/// of it is refused
#[utoipa::path(patch, path = "/api/v1/config", tag = "config", request_body = ConfigChange,
    responses((status = 200, body = Vec<ConfigRevision>), (status = 422, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn merge(
    State(app): State<App>,
    Operator(person): Operator,
    Body(change): Body<ConfigChange>,
) -> ApiResult<Json<Vec<ConfigRevision>>> {
    let merged = |mut now: Settings, patch: &Settings| {
        merge_patch(&mut now, patch);
        now
    };
    carry_out(&app, &person.name, &change, merged).await
}

/// Replace layers of settings; answers what changed, and nothing changes when any of it is refused
#[utoipa::path(put, path = "/api/v1/config", tag = "config", request_body = ConfigChange,
    responses((status = 200, body = Vec<ConfigRevision>), (status = 422, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn replace(
    State(app): State<App>,
    Operator(person): Operator,
    Body(change): Body<ConfigChange>,
) -> ApiResult<Json<Vec<ConfigRevision>>> {
    carry_out(&app, &person.name, &change, |_, new| new.clone()).await
}

async fn carry_out(
    app: &Shared,
    author: &str,
    change: &ConfigChange,
    becomes: impl Fn(Settings, &Settings) -> Settings,
) -> ApiResult<Json<Vec<ConfigRevision>>> {
    let mut tx = app.store.begin().await?;
    let mut made = Vec::new();
    for (layer, settings) in &change.layers {
        let now = fleet_config::layer_at(&mut *tx, layer, i64::MAX).await?;
        let new = becomes(now, settings);
        made.extend(put(app, &mut tx, layer, new, author, &change.note).await?);
    }
    tell(app, tx, &made).await?;
    Ok(Json(made))
}

/// A layer's new content; nothing when it has it already.
pub(super) async fn put(
    app: &Shared,
    tx: &mut Tx,
    layer: &ConfigLayer,
    settings: Settings,
    author: &str,
    note: &str,
) -> ApiResult<Option<ConfigRevision>> {
    let note = printable("note", note)?;
    if let ConfigLayer::Device(id) = layer
        && !settings.is_empty()
        && devices::credentials(&mut **tx, id).await?.is_none()
    {
        return Err(
            ApiError::unknown("device", id.as_str()).help("`pytheas device list` shows them")
        );
    }
    let length = serde_json::to_vec(&settings).map_or(0, |bytes| bytes.len());
    if length > LAYER_MAX {
        let message = format!("settings of `{layer}` have {length} bytes, more than {LAYER_MAX}");
        return Err(
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too-long", message)
                .help("files belong into a release"),
        );
    }
    if !within_depth(&settings) {
        let message =
            format!("settings of `{layer}` are nested deeper than {SETTINGS_DEPTH_MAX} levels");
        return Err(
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too-deep", message)
                .help("devices could not read them back"),
        );
    }
    if fleet_config::layer_at(&mut **tx, layer, i64::MAX).await? == settings {
        return Ok(None);
    }
    let now_ms = app.now_ms();
    let made = fleet_config::put(tx, layer, settings, author, note, now_ms).await?;
    Ok(Some(made))
}

/// Makes the change last, and tells of it.
pub(super) async fn tell(app: &Shared, tx: Tx, made: &[ConfigRevision]) -> ApiResult<()> {
    tx.commit().await?;
    if let Some(last) = made.last() {
        app.bus.publish(EventKind::ConfigChanged {
            revision: last.revision,
        });
    }
    Ok(())
}
