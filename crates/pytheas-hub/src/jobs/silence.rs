//! Time passes: silent devices of running rollouts are given up, devices that no longer poll are
//! shown as offline.

use pytheas_api::EventKind;

use crate::app::Shared;

/// One tick.
pub(crate) async fn run(app: &Shared) {
    for device in app.presence.fallen_silent(app.now_ms()) {
        app.bus.publish(EventKind::DeviceChanged { device });
    }
    if let Err(error) = app.engine.tick().await {
        tracing::error!(%error, "rollouts were not looked at; trying again");
    }
}
