//! People's tokens and the sessions of their browsers.

use pytheas_api::{Role, TokenView};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::Result;
use crate::secret::Hash;

fn view(row: &SqliteRow) -> Result<TokenView> {
    let role: String = row.try_get("role")?;
    Ok(TokenView {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: role
            .parse::<Role>()
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
        created_ms: row.try_get("created_ms")?,
        last_used_ms: row.try_get("last_used_ms")?,
    })
}

/// Whether there is any token: false only before the first start.
pub(crate) async fn any(db: &mut SqliteConnection) -> Result<bool> {
    Ok(sqlx::query("SELECT 1 FROM tokens LIMIT 1")
        .fetch_optional(db)
        .await?
        .is_some())
}

/// Adds a token.
pub(crate) async fn add(
    db: &mut SqliteConnection,
    name: &str,
    role: Role,
    hash: Hash,
    now_ms: i64,
) -> Result<TokenView> {
    let row = sqlx::query(
        "INSERT INTO tokens (name, role, hash, created_ms) VALUES (?, ?, ?, ?) RETURNING *",
    )
    .bind(name)
    .bind(role.as_str())
    .bind(hash.as_slice())
    .bind(now_ms)
    .fetch_one(db)
    .await?;
    view(&row)
}

/// The token with this hash.
pub(crate) async fn by_hash(db: &SqlitePool, hash: Hash) -> Result<Option<TokenView>> {
    let row = sqlx::query("SELECT * FROM tokens WHERE hash = ?")
        .bind(hash.as_slice())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(view).transpose()
}

/// All tokens.
pub(crate) async fn list(db: &SqlitePool) -> Result<Vec<TokenView>> {
    sqlx::query("SELECT * FROM tokens ORDER BY id")
        .fetch_all(db)
        .await?
        .iter()
        .map(view)
        .collect()
}

/// Revokes a token, its sessions with it.
pub(crate) async fn remove(db: &mut SqliteConnection, id: i64) -> Result<Option<TokenView>> {
    let row = sqlx::query("DELETE FROM tokens WHERE id = ? RETURNING *")
        .bind(id)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(view).transpose()
}

/// How many administrators there are.
pub(crate) async fn admins(db: &mut SqliteConnection) -> Result<i64> {
    sqlx::query("SELECT count(*) FROM tokens WHERE role = 'admin'")
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Notes that a token was used.
pub(crate) async fn used(db: &mut SqliteConnection, id: i64, now_ms: i64) -> Result<()> {
    sqlx::query("UPDATE tokens SET last_used_ms = ? WHERE id = ?")
        .bind(now_ms)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Begins a browser's session, and forgets those that ended.
pub(crate) async fn begin_session(
    db: &mut SqliteConnection,
    token: i64,
    hash: Hash,
    now_ms: i64,
    expires_ms: i64,
) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE expires_ms <= ?")
        .bind(now_ms)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO sessions (hash, token, expires_ms) VALUES (?, ?, ?)")
        .bind(hash.as_slice())
        .bind(token)
        .bind(expires_ms)
        .execute(db)
        .await?;
    Ok(())
}

/// The token whose session this is.
pub(crate) async fn by_session(
    db: &SqlitePool,
    hash: Hash,
    now_ms: i64,
) -> Result<Option<TokenView>> {
    let row = sqlx::query(
        "SELECT t.* FROM sessions s JOIN tokens t ON t.id = s.token
         WHERE s.hash = ? AND s.expires_ms > ?",
    )
    .bind(hash.as_slice())
    .bind(now_ms)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(view).transpose()
}

/// Ends a session.
pub(crate) async fn end_session(db: &mut SqliteConnection, hash: Hash) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE hash = ?")
        .bind(hash.as_slice())
        .execute(db)
        .await?;
    Ok(())
}
