//! Actions: one assignment of a module to a device, and what was said about it.

use std::collections::BTreeMap;

use pytheas_api::{ActionMessage, ActionStatus, ActionView, DeviceId};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{Result, json, parsed};
use crate::secret::Hash;

/// One action as the machine needs it.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    /// The number that DDI shows.
    pub(crate) id: i64,
    /// Whose.
    pub(crate) device: DeviceId,
    /// Of which rollout.
    pub(crate) rollout: i64,
    /// What is assigned.
    pub(crate) module: i64,
    /// Where it stands.
    pub(crate) status: ActionStatus,
    /// How many reports there were.
    pub(crate) entries: i64,
    /// Digest of the report that closed it.
    pub(crate) closing_digest: Option<Hash>,
}

fn status(text: &str) -> Result<ActionStatus> {
    ActionStatus::from_name(text)
        .ok_or_else(|| sqlx::Error::Decode(format!("action status `{text}`").into()))
}

fn action(row: &SqliteRow) -> Result<Action> {
    Ok(Action {
        id: row.try_get("id")?,
        device: parsed(row.try_get("device")?)?,
        rollout: row.try_get("rollout")?,
        module: row.try_get("module")?,
        status: status(row.try_get("status")?)?,
        entries: row.try_get("entries")?,
        closing_digest: row
            .try_get::<Option<Vec<u8>>, _>("closing_digest")?
            .and_then(|bytes| Hash::try_from(bytes).ok()),
    })
}

/// The view of an action whose columns begin with `prefix`.
pub(crate) fn view(row: &SqliteRow, prefix: &str) -> Result<ActionView> {
    let column = |name: &str| format!("{prefix}{name}");
    Ok(ActionView {
        id: row.try_get(column("id").as_str())?,
        rollout: row.try_get(column("rollout").as_str())?,
        release: row.try_get(column("release").as_str())?,
        status: status(row.try_get(column("status").as_str())?)?,
        message: row.try_get(column("message").as_str())?,
        created_ms: row.try_get(column("created_ms").as_str())?,
        updated_ms: row.try_get(column("updated_ms").as_str())?,
        messages: Vec::new(),
    })
}

/// Assigns a module to a device.
pub(crate) async fn add(
    db: &mut SqliteConnection,
    device: &DeviceId,
    rollout: i64,
    module: i64,
    status: ActionStatus,
    now_ms: i64,
) -> Result<i64> {
    sqlx::query(
        "INSERT INTO actions (device, rollout, module, status, created_ms, updated_ms)
         VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(device.as_str())
    .bind(rollout)
    .bind(module)
    .bind(status.as_str())
    .bind(now_ms)
    .bind(now_ms)
    .fetch_one(db)
    .await?
    .try_get(0)
}

/// The device's action of this number; other devices' actions are unknown to it.
pub(crate) async fn of_device(
    db: impl SqliteExecutor<'_>,
    device: &DeviceId,
    id: i64,
) -> Result<Option<Action>> {
    let row = sqlx::query("SELECT * FROM actions WHERE id = ? AND device = ?")
        .bind(id)
        .bind(device.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(action).transpose()
}

/// The device's open actions, oldest first.
pub(crate) async fn open(db: impl SqliteExecutor<'_>, device: &DeviceId) -> Result<Vec<Action>> {
    sqlx::query(
        "SELECT * FROM actions WHERE device = ?
         AND status NOT IN ('succeeded', 'failed', 'cancelled') ORDER BY id",
    )
    .bind(device.as_str())
    .fetch_all(db)
    .await?
    .iter()
    .map(action)
    .collect()
}

/// The device's action of this rollout.
pub(crate) async fn of_rollout(
    db: impl SqliteExecutor<'_>,
    rollout: i64,
    device: &DeviceId,
) -> Result<Option<Action>> {
    let row = sqlx::query(
        "SELECT * FROM actions WHERE rollout = ? AND device = ? ORDER BY id DESC LIMIT 1",
    )
    .bind(rollout)
    .bind(device.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(action).transpose()
}

/// The device's newest action that ended well.
pub(crate) async fn installed(
    db: impl SqliteExecutor<'_>,
    device: &DeviceId,
) -> Result<Option<i64>> {
    sqlx::query(
        "SELECT id FROM actions WHERE device = ? AND status = 'succeeded' ORDER BY id DESC LIMIT 1",
    )
    .bind(device.as_str())
    .fetch_optional(db)
    .await?
    .map(|row| row.try_get(0))
    .transpose()
}

/// Moves an action on, with what was said about it.
pub(crate) async fn report(
    db: &mut SqliteConnection,
    id: i64,
    status: ActionStatus,
    details: &[String],
    closing_digest: Option<Hash>,
    now_ms: i64,
) -> Result<()> {
    sqlx::query(
        "UPDATE actions SET status = ?, message = coalesce(?, message), entries = entries + 1,
            closing_digest = coalesce(?, closing_digest), updated_ms = ? WHERE id = ?",
    )
    .bind(status.as_str())
    .bind(details.first())
    .bind(closing_digest.as_ref().map(Hash::as_slice))
    .bind(now_ms)
    .bind(id)
    .execute(&mut *db)
    .await?;
    let details = serde_json::to_string(details).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query("INSERT INTO action_messages (action, at_ms, status, details) VALUES (?, ?, ?, ?)")
        .bind(id)
        .bind(now_ms)
        .bind(status.as_str())
        .bind(details)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM action_messages WHERE action = ?1 AND id <=
            (SELECT id FROM action_messages WHERE action = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(id)
    .bind(MESSAGES_MAX)
    .execute(db)
    .await?;
    Ok(())
}

/// Reports of one action that are kept and shown: a device can write a thousand long ones.
const MESSAGES_MAX: u32 = 100;

/// Forgets all but about the newest `kept` reports; how many those were.
pub(crate) async fn prune_messages(db: &mut SqliteConnection, kept: i64) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM action_messages WHERE id <= (SELECT max(id) FROM action_messages) - ?",
    )
    .bind(kept)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// What was said last about an action, oldest first.
pub(crate) async fn messages(db: &SqlitePool, id: i64) -> Result<Vec<ActionMessage>> {
    sqlx::query("SELECT * FROM action_messages WHERE action = ? ORDER BY id DESC LIMIT ?")
        .bind(id)
        .bind(MESSAGES_MAX)
        .fetch_all(db)
        .await?
        .iter()
        .rev()
        .map(|row| {
            Ok(ActionMessage {
                at_ms: row.try_get("at_ms")?,
                status: status(row.try_get("status")?)?,
                details: json(row.try_get("details")?)?,
            })
        })
        .collect()
}

/// The device's newest actions with what was said about them, newest first.
pub(crate) async fn history(
    db: &SqlitePool,
    device: &DeviceId,
    limit: u32,
) -> Result<Vec<ActionView>> {
    let rows = sqlx::query(
        "SELECT a.*, r.release FROM actions a
         JOIN rollouts r ON r.id = a.rollout WHERE a.device = ? ORDER BY a.id DESC LIMIT ?",
    )
    .bind(device.as_str())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let mut history = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut action = view(row, "")?;
        action.messages = messages(db, action.id).await?;
        history.push(action);
    }
    Ok(history)
}

/// The TUF targets of the device's actions that are releases for boards, by action.
pub(crate) async fn board_targets(
    db: &SqlitePool,
    device: &DeviceId,
) -> Result<BTreeMap<i64, Vec<String>>> {
    let rows = sqlx::query(
        "SELECT a.id, m.target FROM actions a JOIN modules m ON m.id = a.module OR m.id IN
           (SELECT o.also FROM rollout_also o WHERE o.rollout = a.rollout AND o.module = a.module)
         WHERE a.device = ? AND m.platform LIKE 'micropython-%'",
    )
    .bind(device.as_str())
    .fetch_all(db)
    .await?;
    let mut targets: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for row in &rows {
        let of: &mut Vec<String> = targets.entry(row.try_get("id")?).or_default();
        of.push(row.try_get("target")?);
    }
    Ok(targets)
}

/// The newest failures over all devices: device and action, newest first.
pub(crate) async fn failures(db: &SqlitePool, limit: u32) -> Result<Vec<(DeviceId, ActionView)>> {
    sqlx::query(
        "SELECT a.*, r.release FROM actions a
         JOIN rollouts r ON r.id = a.rollout WHERE a.status = 'failed'
         ORDER BY a.updated_ms DESC, a.id DESC LIMIT ?",
    )
    .bind(limit)
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| Ok((parsed(row.try_get("device")?)?, view(row, "")?)))
    .collect()
}

/// How many actions are open.
pub(crate) async fn count_open(db: &SqlitePool) -> Result<i64> {
    sqlx::query(
        "SELECT count(*) FROM actions WHERE status NOT IN ('succeeded', 'failed', 'cancelled')",
    )
    .fetch_one(db)
    .await?
    .try_get(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn an_action_keeps_what_was_said_last_and_all_of_them_together_no_more_than_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("hub.db")).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        // Reports alone, without what they are about.
        sqlx::raw_sql("PRAGMA defer_foreign_keys = ON")
            .execute(&mut *tx)
            .await
            .unwrap();
        for at_ms in 0..i64::from(MESSAGES_MAX) + 50 {
            let details = [format!("report {at_ms}")];
            let status = ActionStatus::Downloading;
            report(&mut tx, 1, status, &details, None, at_ms)
                .await
                .unwrap();
        }
        let times = "SELECT at_ms FROM action_messages ORDER BY id";
        let left: Vec<i64> = sqlx::query_scalar(times).fetch_all(&mut *tx).await.unwrap();
        assert_eq!(left, (50..150).collect::<Vec<i64>>());
        assert_eq!(prune_messages(&mut tx, 1000).await.unwrap(), 0);
        assert_eq!(prune_messages(&mut tx, 10).await.unwrap(), 90);
        let left: Vec<i64> = sqlx::query_scalar(times).fetch_all(&mut *tx).await.unwrap();
        assert_eq!(left, (140..150).collect::<Vec<i64>>());
    }
}
