//! Keeps the deltas that the hub has made below their limits of room and age.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pytheas_repo::on_demand::{self, Collected, Keep};

use crate::{app::Shared, releases::ReleasesError};

/// How often the job looks.
pub(crate) const EVERY: Duration = Duration::from_secs(600);

/// When no more are made, those that are there go.
const NONE: Keep = Keep {
    size_bytes: 0,
    unused: SignedDuration::ZERO,
};

/// One look.
pub(crate) async fn run(app: &Shared) {
    if !app.releases.store.can_be_swept() {
        return;
    }
    match collect(app).await {
        Ok(Collected { removed: 0, .. }) => {}
        Ok(done) => {
            let Collected {
                removed,
                removed_bytes,
                kept,
                ..
            } = done;
            tracing::info!(
                removed,
                removed_bytes,
                kept,
                "removed {removed} deltas made on demand, {removed_bytes} bytes; {kept} are left"
            );
        }
        Err(error) => {
            tracing::error!(%error, "deltas made on demand were not looked after; trying again");
        }
    }
}

async fn collect(app: &Shared) -> Result<Collected, ReleasesError> {
    let now = Timestamp::from_millisecond(app.now_ms()).unwrap_or_default();
    let (trees, signed) = app.releases.trees_and_deltas().await?;
    let keep = app.config.made_deltas.unwrap_or(NONE);
    let published = |from, to| {
        trees.iter().any(|(app, platform, tree)| {
            *tree == to && trees.contains(&(app.clone(), platform.clone(), from))
        })
    };
    let _not_while_writing = app.delta_orders.keeping.lock().await;
    let store = &app.releases.store;
    Ok(on_demand::collect(store, keep, now, &signed, published).await?)
}
