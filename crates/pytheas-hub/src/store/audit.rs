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

/// Forgets all but the newest `kept` entries; how many those were.
pub(crate) async fn prune(db: &mut SqliteConnection, kept: i64) -> Result<u64> {
    let done = sqlx::query("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?")
        .bind(kept)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn pruning_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("hub.db")).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(prune(&mut tx, 2).await.unwrap(), 0);
        for at_ms in 0..5 {
            note(&mut tx, at_ms, "ada", "a", "b", "").await.unwrap();
        }
        assert_eq!(prune(&mut tx, 2).await.unwrap(), 3);
        tx.commit().await.unwrap();
        let left = list(&store.read, i64::MAX, 10).await.unwrap();
        let times: Vec<i64> = left.iter().map(|entry| entry.at_ms).collect();
        assert_eq!(times, [4, 3]);
    }
}
