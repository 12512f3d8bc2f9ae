//! Signs the repository's timestamp (and snapshot) again before they expire, and when a team has
//! uploaded releases, with the online keys. They are read from their folder each time: replaced
//! ones are in use at the next look, without a restart.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pytheas_api::EventKind;
use pytheas_repo::{
    keys::OnlineKeys,
    layout,
    publish::Validity,
    renew::{self, RenewError},
    repository::RepositoryError,
    store::StoreError,
};
use serde::Deserialize;

use crate::app::Shared;

/// How often the job looks.
pub(crate) const EVERY: Duration = Duration::from_secs(600);

/// The timestamp is signed again when less than this is left of it (of seven days).
const LEFT: SignedDuration = SignedDuration::from_hours(6 * 24);

#[derive(Debug, Deserialize)]
struct Metadata {
    signed: Signed,
}

#[derive(Debug, Deserialize)]
struct Signed {
    expires: Timestamp,
}

/// One look.
pub(crate) async fn run(app: &Shared) {
    let Some(folder) = &app.config.online_keys else {
        return;
    };
    let now = Timestamp::from_millisecond(app.now_ms()).unwrap_or_default();
    let due = match due(app, now).await {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "the timestamp cannot be read");
            return;
        }
    };
    let keys = match OnlineKeys::load(folder) {
        Ok(keys) => keys,
        Err(error) => {
            tracing::error!(%error, "the online keys cannot be used; the timestamp is not renewed");
            return;
        }
    };
    let _one_at_a_time = app.publishing.lock().await;
    if !due {
        match renew::has_uploads(&app.releases.store, &keys, now).await {
            Ok(true) => {}
            Ok(false) | Err(RepositoryError::Empty { .. }) => return,
            Err(error) => {
                tracing::error!(%error, "the repository cannot be read");
                return;
            }
        }
    }
    match renew::renew(&app.releases.store, &keys, &Validity::default(), now).await {
        Ok(renewed) => {
            let version = renewed.timestamp;
            tracing::info!(version, expires = %renewed.expires, "signed timestamp {version}");
            app.bus.publish(EventKind::ReleasesChanged);
        }
        // Somebody publishes: that renews it, too.
        Err(RenewError::Store(StoreError::Locked { .. } | StoreError::Conflict { .. })) => {}
        Err(error) => tracing::error!(%error, "the timestamp was not renewed; trying again"),
    }
}

/// Whether there is a timestamp that will expire soon. One that does not parse is due: the attempt
/// to renew it tells what is wrong.
async fn due(app: &Shared, now: Timestamp) -> Result<bool, StoreError> {
    let Some(bytes) = app.releases.store.get(layout::TIMESTAMP, 1 << 20).await? else {
        return Ok(false);
    };
    Ok(
        serde_json::from_slice::<Metadata>(&bytes).map_or(true, |metadata| {
            metadata.signed.expires.duration_since(now) < LEFT
        }),
    )
}
