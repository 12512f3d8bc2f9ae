//! Writes down in batches what is kept in memory: byte counters, and when devices were heard.

use crate::{
    app::Shared,
    store::{self, devices, traffic},
};

/// One batch; also called when the hub stops.
pub(crate) async fn run(app: &Shared) {
    let counters = app.traffic.take_unwritten();
    let seen = app.presence.take_unwritten();
    if counters.is_empty() && seen.is_empty() {
        return;
    }
    let written: store::Result<()> = async {
        let mut tx = app.store.begin().await?;
        for (device, kind, sums) in &counters {
            traffic::set(&mut tx, device, *kind, *sums).await?;
        }
        for (device, at_ms, address) in &seen {
            devices::seen(&mut tx, device, *at_ms, address).await?;
        }
        tx.commit().await
    }
    .await;
    if let Err(error) = written {
        tracing::error!(%error, "counters were not written down; trying again");
        app.traffic.put_back(counters);
        app.presence.put_back(seen);
    }
}
