//! Devices: who they are, what they say of themselves, how they are shown.

use std::collections::BTreeMap;

use pytheas_api::{
    ActionStatus, DeviceId, DeviceState, DeviceView, Group, UpdateState,
    ddi::{AutoConfirm, MergeMode},
};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{Result, actions, parsed};
use crate::secret::Hash;

/// What authentication needs of a device.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Whether somebody accepted it.
    pub(crate) accepted: bool,
    /// Hash of the secret it enrolled with; absent when a person made it.
    pub(crate) claim_hash: Option<Hash>,
    /// Hash of the token it uses.
    pub(crate) token_hash: Option<Hash>,
    /// Hash of the token it was given last and has not used yet.
    pub(crate) next_token_hash: Option<Hash>,
    /// Whether its attributes are wanted.
    pub(crate) wants_config: bool,
}

fn digest(row: &SqliteRow, column: &str) -> Result<Option<Hash>> {
    Ok(row
        .try_get::<Option<Vec<u8>>, _>(column)?
        .and_then(|bytes| Hash::try_from(bytes).ok()))
}

/// What authentication needs of this device.
pub(crate) async fn credentials(
    db: impl SqliteExecutor<'_>,
    id: &DeviceId,
) -> Result<Option<Credentials>> {
    let row = sqlx::query("SELECT * FROM devices WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        Ok(Credentials {
            accepted: row.try_get::<Option<i64>, _>("accepted_ms")?.is_some(),
            claim_hash: digest(&row, "claim_hash")?,
            token_hash: digest(&row, "token_hash")?,
            next_token_hash: digest(&row, "next_token_hash")?,
            wants_config: row.try_get("wants_config")?,
        })
    })
    .transpose()
}

/// Adds a device; accepted when `accepted_ms` is there.
pub(crate) async fn add(
    db: &mut SqliteConnection,
    id: &DeviceId,
    name: &str,
    platform: Option<&str>,
    claim_hash: Option<Hash>,
    accepted_ms: Option<i64>,
    now_ms: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO devices (id, name, platform, claim_hash, accepted_ms, created_ms)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(id.as_str())
    .bind(name)
    .bind(platform)
    .bind(claim_hash.as_ref().map(Hash::as_slice))
    .bind(accepted_ms)
    .bind(now_ms)
    .execute(db)
    .await?;
    Ok(())
}

/// Accepts a device; false when there is none, or it was accepted before.
pub(crate) async fn accept(db: &mut SqliteConnection, id: &DeviceId, now_ms: i64) -> Result<bool> {
    let done =
        sqlx::query("UPDATE devices SET accepted_ms = ? WHERE id = ? AND accepted_ms IS NULL")
            .bind(now_ms)
            .bind(id.as_str())
            .execute(db)
            .await?;
    Ok(done.rows_affected() > 0)
}

/// Puts a device into a group, or out of any.
pub(crate) async fn set_group(
    db: &mut SqliteConnection,
    id: &DeviceId,
    group: Option<&Group>,
) -> Result<bool> {
    let done = sqlx::query("UPDATE devices SET grp = ? WHERE id = ?")
        .bind(group.map(Group::as_str))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes a device with its actions.
pub(crate) async fn remove(db: &mut SqliteConnection, id: &DeviceId) -> Result<bool> {
    let done = sqlx::query("DELETE FROM devices WHERE id = ?")
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Sets the token that a device uses, or (with `next`) will use.
pub(crate) async fn set_token(
    db: &mut SqliteConnection,
    id: &DeviceId,
    token: Option<Hash>,
    next: Option<Hash>,
) -> Result<()> {
    sqlx::query("UPDATE devices SET token_hash = ?, next_token_hash = ? WHERE id = ?")
        .bind(token.as_ref().map(Hash::as_slice))
        .bind(next.as_ref().map(Hash::as_slice))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes whether a device's attributes are wanted.
pub(crate) async fn want_config(
    db: &mut SqliteConnection,
    id: &DeviceId,
    wanted: bool,
) -> Result<()> {
    sqlx::query("UPDATE devices SET wants_config = ? WHERE id = ?")
        .bind(wanted)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether the device agrees to updates by itself.
pub(crate) async fn auto_confirm(
    db: impl SqliteExecutor<'_>,
    device: &DeviceId,
) -> Result<AutoConfirm> {
    let row = sqlx::query("SELECT auto_confirm FROM devices WHERE id = ?")
        .bind(device.as_str())
        .fetch_optional(db)
        .await?;
    let text: Option<String> = match row {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    text.map_or_else(|| Ok(AutoConfirm::default()), |text| super::json(&text))
}

/// Keeps it.
pub(crate) async fn set_auto_confirm(
    db: &mut SqliteConnection,
    device: &DeviceId,
    auto: &AutoConfirm,
) -> Result<()> {
    let text = serde_json::to_string(auto).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query("UPDATE devices SET auto_confirm = ? WHERE id = ?")
        .bind(auto.active.then_some(text))
        .bind(device.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes when and from where a device was last heard.
pub(crate) async fn seen(
    db: &mut SqliteConnection,
    id: &DeviceId,
    at_ms: i64,
    address: &str,
) -> Result<()> {
    sqlx::query("UPDATE devices SET last_seen_ms = ?, last_address = ? WHERE id = ?")
        .bind(at_ms)
        .bind(address)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// A device's attributes.
pub(crate) async fn attributes(
    db: impl SqliteExecutor<'_>,
    id: &DeviceId,
) -> Result<BTreeMap<String, String>> {
    sqlx::query("SELECT key, value FROM attributes WHERE device = ?")
        .bind(id.as_str())
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Merges attributes; a platform among them becomes the device's platform.
pub(crate) async fn merge_attributes(
    db: &mut SqliteConnection,
    id: &DeviceId,
    mode: MergeMode,
    data: &BTreeMap<String, String>,
) -> Result<()> {
    if mode == MergeMode::Replace {
        sqlx::query("DELETE FROM attributes WHERE device = ?")
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
    }
    for (key, value) in data {
        let query = if mode == MergeMode::Remove {
            sqlx::query("DELETE FROM attributes WHERE device = ? AND key = ?")
                .bind(id.as_str())
                .bind(key)
        } else {
            sqlx::query("INSERT OR REPLACE INTO attributes (device, key, value) VALUES (?, ?, ?)")
                .bind(id.as_str())
                .bind(key)
                .bind(value)
        };
        query.execute(&mut *db).await?;
    }
    if mode != MergeMode::Remove
        && let Some(platform) = data.get(pytheas_api::ddi::ATTRIBUTE_PLATFORM)
    {
        sqlx::query("UPDATE devices SET platform = ? WHERE id = ?")
            .bind(platform)
            .bind(id.as_str())
            .execute(db)
            .await?;
    }
    Ok(())
}

/// What an accepted device can be given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accepted {
    /// Its platform.
    pub(crate) platform: Option<String>,
    /// The apps that boards on its ports run, with those boards' platform.
    pub(crate) boards: BTreeMap<String, String>,
}

/// Accepted devices, by id.
pub(crate) async fn accepted(db: &SqlitePool) -> Result<Vec<(DeviceId, Accepted)>> {
    let mut boards: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let prefix = pytheas_api::ddi::ATTRIBUTE_BOARD_APP;
    let rows = sqlx::query("SELECT device, key, value FROM attributes WHERE key LIKE ? || '%'")
        .bind(prefix)
        .fetch_all(db)
        .await?;
    for row in rows {
        let key: String = row.try_get(1)?;
        if let Some(app) = key.strip_prefix(prefix) {
            let of_device = boards.entry(row.try_get(0)?).or_default();
            of_device.insert(app.to_owned(), row.try_get(2)?);
        }
    }
    sqlx::query("SELECT id, platform FROM devices WHERE accepted_ms IS NOT NULL ORDER BY id")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let id: String = row.try_get(0)?;
            let device = Accepted {
                platform: row.try_get(1)?,
                boards: boards.remove(&id).unwrap_or_default(),
            };
            Ok((parsed(&id)?, device))
        })
        .collect()
}

/// When each device was last heard, as far as it was written down.
pub(crate) async fn last_seen(db: &SqlitePool) -> Result<Vec<(DeviceId, i64, String)>> {
    sqlx::query("SELECT id, last_seen_ms, last_address FROM devices WHERE last_seen_ms IS NOT NULL")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            let address: Option<String> = row.try_get(2)?;
            Ok((
                parsed(row.try_get(0)?)?,
                row.try_get(1)?,
                address.unwrap_or_default(),
            ))
        })
        .collect()
}

/// How many devices there are, and how many of them wait to be accepted.
pub(crate) async fn counts(db: impl SqliteExecutor<'_>) -> Result<(i64, i64)> {
    let row = sqlx::query("SELECT count(*), count(*) - count(accepted_ms) FROM devices")
        .fetch_one(db)
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// How devices are shown: with what they say they run and their newest action.
const VIEW: &str = "
    SELECT d.*,
        (SELECT value FROM attributes WHERE device = d.id AND key = 'pytheas.release') AS said_release,
        (SELECT value FROM attributes WHERE device = d.id AND key = 'pytheas.tree') AS said_tree,
        (SELECT m.name || '@' || m.version FROM actions i JOIN modules m ON m.id = i.module
          WHERE i.device = d.id AND i.status = 'succeeded' ORDER BY i.id DESC LIMIT 1) AS installed,
        (SELECT status FROM actions WHERE device = d.id AND status <> 'cancelled'
          ORDER BY id DESC LIMIT 1) AS update_status,
        a.id AS a_id, a.rollout AS a_rollout, a.status AS a_status, a.message AS a_message,
        a.created_ms AS a_created_ms, a.updated_ms AS a_updated_ms,
        ar.release AS a_release,
        (SELECT group_concat(value, ', ') FROM (SELECT value FROM attributes WHERE device = d.id
          AND key GLOB 'pytheas.component.*' ORDER BY key)) AS said_also
    FROM devices d
    LEFT JOIN actions a ON a.id = (SELECT max(id) FROM actions WHERE device = d.id)
    LEFT JOIN rollouts ar ON ar.id = a.rollout";

fn view(row: &SqliteRow) -> Result<DeviceView> {
    let accepted = row.try_get::<Option<i64>, _>("accepted_ms")?.is_some();
    let status: Option<String> = row.try_get("update_status")?;
    let said: Option<String> = row.try_get("said_release")?;
    Ok(DeviceView {
        id: parsed(row.try_get("id")?)?,
        name: row.try_get("name")?,
        platform: row.try_get("platform")?,
        group: row
            .try_get::<Option<String>, _>("grp")?
            .map(|group| parsed(&group))
            .transpose()?,
        // Whether it is online the presence knows, not the database.
        state: if accepted {
            DeviceState::Accepted
        } else {
            DeviceState::Pending
        },
        update: match status.as_deref().and_then(ActionStatus::from_name) {
            None | Some(ActionStatus::Cancelled) => UpdateState::None,
            Some(ActionStatus::Succeeded) => UpdateState::InSync,
            Some(ActionStatus::Failed) => UpdateState::Error,
            Some(_) => UpdateState::Updating,
        },
        release: match said {
            Some(said) => Some(said),
            None => row.try_get("installed")?,
        },
        also: row
            .try_get::<Option<String>, _>("said_also")?
            .map(|also| also.split(", ").map(str::to_owned).collect())
            .unwrap_or_default(),
        tree: row.try_get("said_tree")?,
        last_seen_ms: row.try_get("last_seen_ms")?,
        last_address: row.try_get("last_address")?,
        created_ms: row.try_get("created_ms")?,
        action: match row.try_get::<Option<i64>, _>("a_id")? {
            Some(_) => Some(actions::view(row, "a_")?),
            None => None,
        },
    })
}

/// Devices after `after`, by id; `state` stays [`DeviceState::Accepted`] for accepted ones.
pub(crate) async fn list(db: &SqlitePool, after: &str, limit: u32) -> Result<Vec<DeviceView>> {
    let sql = format!("{VIEW} WHERE d.id > ? ORDER BY d.id LIMIT ?");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(after)
        .bind(limit)
        .fetch_all(db)
        .await?
        .iter()
        .map(view)
        .collect()
}

/// Devices that wait to be accepted, newest first.
pub(crate) async fn pending(db: &SqlitePool, limit: u32) -> Result<Vec<DeviceView>> {
    let sql = format!("{VIEW} WHERE d.accepted_ms IS NULL ORDER BY d.created_ms DESC LIMIT ?");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(view).collect()
}

/// One device.
pub(crate) async fn show(db: &SqlitePool, id: &DeviceId) -> Result<Option<DeviceView>> {
    let sql = format!("{VIEW} WHERE d.id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(view).transpose()
}
