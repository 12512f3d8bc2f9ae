//! `/api/v1/devices`.

use pytheas_api::{DeviceId, DeviceView};

use crate::{
    app::Shared,
    reply::{ApiError, ApiResult},
    store::devices,
};

pub(crate) mod accept;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod group;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod show;

/// A device's id in a path; what cannot be one is unknown.
pub(crate) fn id(text: &str) -> ApiResult<DeviceId> {
    text.parse().map_err(|_| unknown(text))
}

/// 404.
pub(crate) fn unknown(id: &str) -> ApiError {
    ApiError::unknown("device", id).help("`pytheas device list` shows them")
}

/// The device as people see it.
pub(crate) async fn view(app: &Shared, id: &DeviceId) -> ApiResult<DeviceView> {
    let shown = devices::show(&app.store.read, id).await?;
    let mut view = shown.ok_or_else(|| unknown(id.as_str()))?;
    app.presence.complete(&mut view, app.now_ms());
    Ok(view)
}

/// Devices after `after`, as people see them.
pub(crate) async fn views(app: &Shared, after: &str, limit: u32) -> ApiResult<Vec<DeviceView>> {
    let mut views = devices::list(&app.store.read, after, limit).await?;
    let now_ms = app.now_ms();
    for view in &mut views {
        app.presence.complete(view, now_ms);
    }
    Ok(views)
}
