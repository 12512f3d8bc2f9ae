//! Keys that accept devices without a person.

use pytheas_api::EnrolmentKeyView;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::Result;
use crate::secret::Hash;

fn view(row: &SqliteRow) -> Result<EnrolmentKeyView> {
    Ok(EnrolmentKeyView {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        uses_left: row.try_get("uses_left")?,
        expires_ms: row.try_get("expires_ms")?,
        created_ms: row.try_get("created_ms")?,
    })
}

/// Adds a key.
pub(crate) async fn add(
    db: &mut SqliteConnection,
    name: &str,
    hash: Hash,
    uses: Option<u32>,
    expires_ms: Option<i64>,
    now_ms: i64,
) -> Result<EnrolmentKeyView> {
    let row = sqlx::query(
        "INSERT INTO enrolment_keys (name, hash, uses_left, expires_ms, created_ms)
         VALUES (?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(name)
    .bind(hash.as_slice())
    .bind(uses)
    .bind(expires_ms)
    .bind(now_ms)
    .fetch_one(db)
    .await?;
    view(&row)
}

/// All keys.
pub(crate) async fn list(db: &SqlitePool) -> Result<Vec<EnrolmentKeyView>> {
    sqlx::query("SELECT * FROM enrolment_keys ORDER BY id")
        .fetch_all(db)
        .await?
        .iter()
        .map(view)
        .collect()
}

/// Takes a key away; devices it accepted stay accepted.
pub(crate) async fn remove(db: &mut SqliteConnection, id: i64) -> Result<bool> {
    let done = sqlx::query("DELETE FROM enrolment_keys WHERE id = ?")
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Uses a key once, when it is known, not ended and not used up; answers its name.
pub(crate) async fn take(
    db: &mut SqliteConnection,
    hash: Hash,
    now_ms: i64,
) -> Result<Option<String>> {
    sqlx::query(
        "UPDATE enrolment_keys SET uses_left = uses_left - 1
         WHERE hash = ? AND (uses_left IS NULL OR uses_left > 0)
           AND (expires_ms IS NULL OR expires_ms > ?)
         RETURNING name",
    )
    .bind(hash.as_slice())
    .bind(now_ms)
    .fetch_optional(db)
    .await?
    .map(|row| row.try_get(0))
    .transpose()
}
