//! Who changed what; written in the transaction of the change itself.

use pytheas_api::AuditEntry;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::Result;

/// Notes one change.
pub(crate) async fn note(
    db: &mut SqliteConnection,
    at_ms: i64,
    actor: &str,
    action: &str,
    subject: &str,
    detail: &str,
) -> Result<()> {
    sqlx::query("INSERT INTO audit (at_ms, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)")
        .bind(at_ms)
        .bind(actor)
        .bind(action)
        .bind(subject)
        .bind(detail)
        .execute(db)
        .await?;
    Ok(())
}

/// The newest changes before `before` (an id), newest first.
pub(crate) async fn list(db: &SqlitePool, before: i64, limit: u32) -> Result<Vec<AuditEntry>> {
    sqlx::query("SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?")
        .bind(before)
        .bind(limit)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            Ok(AuditEntry {
                id: row.try_get("id")?,
                at_ms: row.try_get("at_ms")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                subject: row.try_get("subject")?,
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}
