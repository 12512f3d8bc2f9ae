//! `PUT …/configData`: the device tells its attributes.

use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pytheas_api::{
    EventKind,
    ddi::{ConfigData, MergeMode},
};

use super::{failed, parse};
use crate::{
    app::App,
    auth::Device,
    reply::{ApiError, is_printable},
    store::devices,
};

/// hawkBit's limit of attributes per device.
const ATTRIBUTES_MAX: usize = 100;

/// Merges the attributes; the hub wants them no more.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut config: ConfigData = match parse(&body) {
        Ok(config) => config,
        Err(response) => return Ok(response),
    };
    let bad = |message: String| failed(StatusCode::BAD_REQUEST, "pytheas.attributes", message);
    if config.data.is_empty() {
        return Ok(bad("`data` is empty".into()));
    }
    // A value that quotes an exception may hold anything: that is no reason to hear no more of the
    // device.
    for value in config.data.values_mut() {
        if value.contains(char::is_control) {
            *value = value.replace(char::is_control, "?");
        }
    }
    for (key, value) in &config.data {
        if key.is_empty() || !is_printable(key) || !is_printable(value) {
            let key: String = key.chars().take(40).collect();
            return Ok(bad(format!(
                "attribute `{key}`: at most 128 printable characters"
            )));
        }
    }
    let mode = config.mode.unwrap_or_default();
    let mut tx = app.store.begin().await?;
    devices::merge_attributes(&mut tx, &device.id, mode, &config.data).await?;
    if mode != MergeMode::Remove
        && devices::attributes(&mut *tx, &device.id).await?.len() > ATTRIBUTES_MAX
    {
        let message = format!("a device has at most {ATTRIBUTES_MAX} attributes");
        return Ok(failed(
            StatusCode::TOO_MANY_REQUESTS,
            "pytheas.quota",
            message,
        ));
    }
    devices::want_config(&mut tx, &device.id, false).await?;
    tx.commit().await?;
    app.bus
        .publish(EventKind::DeviceChanged { device: device.id });
    Ok(StatusCode::OK.into_response())
}
