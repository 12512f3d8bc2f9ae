//! Keeps the audit log and what devices said from growing for ever.

use std::time::Duration;

use crate::{
    app::Shared,
    store::{self, actions, audit},
};

/// How often the job looks.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// Entries that are kept: years of people's work, days of a script that went wild.
const ENTRIES_KEPT: i64 = 200_000;
/// Reports of devices that are kept, all together: a few hundred megabytes. How each action ended
/// is kept with the action.
const MESSAGES_KEPT: i64 = 1_000_000;

/// One look.
pub(crate) async fn run(app: &Shared) {
    let pruned: store::Result<(u64, u64)> = async {
        let mut tx = app.store.begin().await?;
        let entries = audit::prune(&mut tx, ENTRIES_KEPT).await?;
        let messages = actions::prune_messages(&mut tx, MESSAGES_KEPT).await?;
        tx.commit().await?;
        Ok((entries, messages))
    }
    .await;
    match pruned {
        Ok((0, 0)) => {}
        Ok((entries, messages)) => tracing::info!(
            entries,
            messages,
            "forgot the oldest {entries} audit entries and {messages} reports"
        ),
        Err(error) => tracing::error!(%error, "old entries were not pruned; trying again"),
    }
}
