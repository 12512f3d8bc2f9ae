//! Layers of settings and their revisions.

use std::collections::BTreeMap;

use pytheas_api::{
    ConfigLayer, ConfigRevision, DeviceId, Settings,
    ddi::{
        ATTRIBUTE_AGENT, ATTRIBUTE_BOARD_CONFIG, ATTRIBUTE_BOARD_CONFIG_REFUSED, ATTRIBUTE_CONFIG,
        ATTRIBUTE_CONFIG_LOG, ATTRIBUTE_CONFIG_REFUSED, NO_REVISION,
    },
    merge_patch,
};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{Result, audit, json, parsed};
use crate::fleet_config::OfDevice;

/// `pytheas.agent` of a board.
const BOARD: &str = "board";

fn revision(row: &SqliteRow) -> Result<ConfigRevision> {
    Ok(ConfigRevision {
        revision: row.try_get("id")?,
        layer: parsed(row.try_get("layer")?)?,
        author: row.try_get("author")?,
        at_ms: row.try_get("at_ms")?,
        note: row.try_get("note")?,
        settings: json(row.try_get("settings")?)?,
    })
}

/// The newest revision of any layer; 0 when there never was one.
pub(crate) async fn newest(db: impl SqliteExecutor<'_>) -> Result<i64> {
    sqlx::query("SELECT coalesce(max(id), 0) FROM config_revisions")
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// One revision.
pub(crate) async fn one(
    db: impl SqliteExecutor<'_>,
    number: i64,
) -> Result<Option<ConfigRevision>> {
    let row = sqlx::query("SELECT * FROM config_revisions WHERE id = ?")
        .bind(number)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(revision).transpose()
}

/// A layer as it stood at revision `at`; empty when nothing was in it yet.
pub(crate) async fn layer_at(
    db: impl SqliteExecutor<'_>,
    layer: &ConfigLayer,
    at: i64,
) -> Result<Settings> {
    let row = sqlx::query(
        "SELECT settings FROM config_revisions WHERE layer = ? AND id <= ? ORDER BY id DESC LIMIT 1",
    )
    .bind(layer.to_string())
    .bind(at)
    .fetch_optional(db)
    .await?;
    row.map_or(Ok(Settings::new()), |row| json(row.try_get(0)?))
}

/// Every layer that holds something.
pub(crate) async fn layers(db: impl SqliteExecutor<'_>) -> Result<BTreeMap<ConfigLayer, Settings>> {
    sqlx::query(
        "SELECT layer, settings FROM config_revisions WHERE settings <> '{}' AND id IN
           (SELECT max(id) FROM config_revisions GROUP BY layer)",
    )
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| Ok((parsed(row.try_get(0)?)?, json(row.try_get(1)?)?)))
    .collect()
}

/// The newest revisions before `before`, newest first; of one layer, or of all.
pub(crate) async fn history(
    db: &SqlitePool,
    layer: Option<&ConfigLayer>,
    before: i64,
    limit: u32,
) -> Result<Vec<ConfigRevision>> {
    sqlx::query(
        "SELECT * FROM config_revisions WHERE id < ?1 AND (?2 IS NULL OR layer = ?2)
         ORDER BY id DESC LIMIT ?3",
    )
    .bind(before)
    .bind(layer.map(ToString::to_string))
    .bind(limit)
    .fetch_all(db)
    .await?
    .iter()
    .map(revision)
    .collect()
}

/// A layer's new content, as a new revision.
pub(crate) async fn put(
    db: &mut SqliteConnection,
    layer: &ConfigLayer,
    settings: Settings,
    author: &str,
    note: &str,
    now_ms: i64,
) -> Result<ConfigRevision> {
    let text = serde_json::Value::Object(settings).to_string();
    let row = sqlx::query(
        "INSERT INTO config_revisions (layer, settings, author, note, at_ms)
         VALUES (?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(layer.to_string())
    .bind(text)
    .bind(author)
    .bind(note)
    .bind(now_ms)
    .fetch_one(&mut *db)
    .await?;
    let made = revision(&row)?;
    let detail = format!("revision {}", made.revision);
    audit::note(
        db,
        now_ms,
        author,
        "config.change",
        &layer.to_string(),
        &detail,
    )
    .await?;
    Ok(made)
}

/// Empties the layer of a device that is removed.
pub(crate) async fn forget(
    db: &mut SqliteConnection,
    device: &DeviceId,
    author: &str,
    now_ms: i64,
) -> Result<()> {
    let layer = ConfigLayer::Device(device.clone());
    if !layer_at(&mut *db, &layer, i64::MAX).await?.is_empty() {
        let note = "the device was removed";
        put(db, &layer, Settings::new(), author, note, now_ms).await?;
    }
    Ok(())
}

/// What a device that polls is to be sent, if anything; in one look for a device that takes no
/// settings, or has none on a hub without any.
pub(crate) async fn wanted(db: &SqlitePool, id: &DeviceId) -> Result<Option<OfDevice>> {
    let row = sqlx::query(
        "SELECT (SELECT value FROM attributes WHERE device = ? AND key = ?),
                EXISTS (SELECT 1 FROM config_revisions)",
    )
    .bind(id.as_str())
    .bind(ATTRIBUTE_CONFIG)
    .fetch_one(db)
    .await?;
    let applied: Option<String> = row.try_get(0)?;
    let any: bool = row.try_get(1)?;
    if applied.is_none_or(|applied| !any && applied == NO_REVISION) {
        return Ok(None);
    }
    let found = for_device(db, id).await?;
    Ok(found.filter(OfDevice::is_wanted))
}

/// A device's settings, and what it says of them; nothing when there is no such device.
pub(crate) async fn for_device(db: &SqlitePool, id: &DeviceId) -> Result<Option<OfDevice>> {
    let row = sqlx::query("SELECT grp FROM devices WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let group: Option<String> = row.try_get(0)?;
    let mut found = OfDevice::default();
    let rows = sqlx::query(
        "SELECT key, value FROM attributes WHERE device = ? AND
           (key IN (?, ?, ?) OR key GLOB ? || '*' OR key GLOB ? || '*' OR key GLOB ? || '*')
         ORDER BY key",
    )
    .bind(id.as_str())
    .bind(ATTRIBUTE_AGENT)
    .bind(ATTRIBUTE_CONFIG)
    .bind(ATTRIBUTE_CONFIG_REFUSED)
    .bind(ATTRIBUTE_CONFIG_LOG)
    .bind(ATTRIBUTE_BOARD_CONFIG)
    .bind(ATTRIBUTE_BOARD_CONFIG_REFUSED)
    .fetch_all(db)
    .await?;
    for row in rows {
        let (key, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        match key.as_str() {
            ATTRIBUTE_AGENT => found.is_board = value == BOARD,
            ATTRIBUTE_CONFIG => found.applied = Some(value),
            ATTRIBUTE_CONFIG_REFUSED => found.refused = Some(value),
            key => {
                let of = |begin: &str| key.strip_prefix(begin).map(str::to_owned);
                if let Some(board) = of(ATTRIBUTE_BOARD_CONFIG) {
                    found.boards.entry(board).or_default().applied = Some(value);
                } else if let Some(board) = of(ATTRIBUTE_BOARD_CONFIG_REFUSED) {
                    found.boards.entry(board).or_default().because = Some(value);
                } else {
                    found.log.push(value);
                }
            }
        }
    }
    let mut names = vec![ConfigLayer::All];
    names.extend(
        group
            .map(|name| parsed(&name).map(ConfigLayer::Group))
            .transpose()?,
    );
    names.push(ConfigLayer::Device(id.clone()));
    for layer in names {
        let row = sqlx::query(
            "SELECT id, settings FROM config_revisions WHERE layer = ? ORDER BY id DESC LIMIT 1",
        )
        .bind(layer.to_string())
        .fetch_optional(db)
        .await?;
        let Some(row) = row else { continue };
        let settings: Settings = json(row.try_get(1)?)?;
        found.revision = found.revision.max(row.try_get(0)?);
        merge_patch(&mut found.settings, &settings);
        if !settings.is_empty() {
            found.layers.push(layer);
        }
    }
    Ok(Some(found))
}
