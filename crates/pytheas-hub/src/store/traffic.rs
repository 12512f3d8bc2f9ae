//! The byte counters' last written values.

use pytheas_api::{TrafficKind, TrafficSums};
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::Result;

/// All counters: device (empty for what no device did), kind, sums.
pub(crate) async fn all(db: &SqlitePool) -> Result<Vec<(String, TrafficKind, TrafficSums)>> {
    let rows = sqlx::query("SELECT * FROM traffic").fetch_all(db).await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let kind: String = row.try_get("kind")?;
        let Some(kind) = TrafficKind::from_name(&kind) else {
            continue;
        };
        let count = |column| row.try_get::<i64, _>(column).map(crate::clock::unsigned);
        let sums = TrafficSums {
            requests: count("requests")?,
            received_bytes: count("received_bytes")?,
            sent_bytes: count("sent_bytes")?,
        };
        out.push((row.try_get("device")?, kind, sums));
    }
    Ok(out)
}

/// Writes one counter.
pub(crate) async fn set(
    db: &mut SqliteConnection,
    device: &str,
    kind: TrafficKind,
    sums: TrafficSums,
) -> Result<()> {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO traffic (device, kind, requests, received_bytes, sent_bytes)
         VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (device, kind) DO UPDATE SET requests = excluded.requests,
            received_bytes = excluded.received_bytes, sent_bytes = excluded.sent_bytes",
    )
    .bind(device)
    .bind(kind.as_str())
    .bind(signed(sums.requests))
    .bind(signed(sums.received_bytes))
    .bind(signed(sums.sent_bytes))
    .execute(db)
    .await?;
    Ok(())
}
