//! Keeps the audit log from growing for ever.

use std::time::Duration;

use crate::{
    app::Shared,
    store::{self, audit},
};

/// How often the job looks.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// Entries that are kept: years of people's work, days of a script that went wild.
const ENTRIES_KEPT: i64 = 200_000;

/// One look.
pub(crate) async fn run(app: &Shared) {
    let pruned: store::Result<u64> = async {
        let mut tx = app.store.begin().await?;
        let pruned = audit::prune(&mut tx, ENTRIES_KEPT).await?;
        tx.commit().await?;
        Ok(pruned)
    }
    .await;
    match pruned {
        Ok(0) => {}
        Ok(pruned) => tracing::info!(pruned, "forgot the oldest {pruned} audit entries"),
        Err(error) => tracing::error!(%error, "the audit log was not pruned; trying again"),
    }
}
