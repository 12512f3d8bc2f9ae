//! What can be assigned: software modules and their files.

use pytheas_api::{ArtifactFile, ArtifactModule, ddi};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::Result;

/// One module: a release on one platform, or an uploaded artifact.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Its number, the one DDI shows.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// The TUF target; empty for an uploaded artifact.
    pub(crate) target: String,
    /// DDI's `part`.
    pub(crate) part: String,
}

fn module(row: &SqliteRow) -> Result<Module> {
    Ok(Module {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        target: row.try_get("target")?,
        part: row.try_get("part")?,
    })
}

fn file(row: &SqliteRow) -> Result<ArtifactFile> {
    Ok(ArtifactFile {
        filename: row.try_get("filename")?,
        size_bytes: row
            .try_get::<i64, _>("size_bytes")
            .map(crate::clock::unsigned)?,
        sha1: row.try_get("sha1")?,
        md5: row.try_get("md5")?,
        sha256: row.try_get("sha256")?,
    })
}

/// The module with this identity, made when missing; `target` and `platform` are empty for an
/// uploaded artifact, whose `part` is the one it was first made with.
pub(crate) async fn ensure(
    db: &mut SqliteConnection,
    name: &str,
    version: &str,
    platform: &str,
    target: &str,
    part: &str,
    now_ms: i64,
) -> Result<Module> {
    let row = sqlx::query(
        "INSERT INTO modules (name, version, platform, target, part, created_ms)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (name, version, platform, target) DO UPDATE SET name = excluded.name
         RETURNING *",
    )
    .bind(name)
    .bind(version)
    .bind(platform)
    .bind(target)
    .bind(part)
    .bind(now_ms)
    .fetch_one(db)
    .await?;
    module(&row)
}

/// The uploaded artifact of this name and version.
pub(crate) async fn artifact(db: &SqlitePool, name: &str, version: &str) -> Result<Option<Module>> {
    let row = sqlx::query("SELECT * FROM modules WHERE name = ? AND version = ? AND target = ''")
        .bind(name)
        .bind(version)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(module).transpose()
}

/// What an action consists of: its module, and those its rollout assigns with it.
pub(crate) async fn of_action(db: &SqlitePool, rollout: i64, lead: i64) -> Result<Vec<Module>> {
    let rows = sqlx::query(
        "SELECT m.*, -1 AS at FROM modules m WHERE m.id = ?1
         UNION ALL
         SELECT m.*, o.position FROM rollout_also o JOIN modules m ON m.id = o.also
          WHERE o.rollout = ?2 AND o.module = ?1
         ORDER BY at",
    )
    .bind(lead)
    .bind(rollout)
    .fetch_all(db)
    .await?;
    rows.iter().map(module).collect()
}

/// A module's files, by name.
pub(crate) async fn files(db: impl SqliteExecutor<'_>, module: i64) -> Result<Vec<ArtifactFile>> {
    sqlx::query("SELECT * FROM files WHERE module = ? ORDER BY filename")
        .bind(module)
        .fetch_all(db)
        .await?
        .iter()
        .map(file)
        .collect()
}

/// Sets one file of a module.
pub(crate) async fn put_file(
    db: &mut SqliteConnection,
    module: i64,
    file: &ArtifactFile,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO files (module, filename, size_bytes, sha1, md5, sha256)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (module, filename) DO UPDATE SET size_bytes = excluded.size_bytes,
            sha1 = excluded.sha1, md5 = excluded.md5, sha256 = excluded.sha256",
    )
    .bind(module)
    .bind(&file.filename)
    .bind(i64::try_from(file.size_bytes).unwrap_or(i64::MAX))
    .bind(&file.sha1)
    .bind(&file.md5)
    .bind(&file.sha256)
    .execute(db)
    .await?;
    Ok(())
}

/// All uploaded artifacts.
pub(crate) async fn artifacts(db: &SqlitePool) -> Result<Vec<ArtifactModule>> {
    let modules = sqlx::query("SELECT * FROM modules WHERE target = '' ORDER BY name, id")
        .fetch_all(db)
        .await?;
    let mut out = Vec::new();
    for row in &modules {
        let module = module(row)?;
        let files = files(db, module.id).await?;
        out.push(ArtifactModule {
            name: module.name,
            version: module.version,
            part: module.part,
            files,
        });
    }
    Ok(out)
}

/// Whether the module is in an action of the device that allows a download: open and not being
/// taken back, or (for the list of files) closed with success.
pub(crate) async fn assigned(
    db: &SqlitePool,
    device: &str,
    module: i64,
    also_installed: bool,
) -> Result<bool> {
    let row = sqlx::query(
        "SELECT 1 FROM actions a WHERE device = ?1 AND
         (module = ?2 OR EXISTS (SELECT 1 FROM rollout_also o
            WHERE o.rollout = a.rollout AND o.module = a.module AND o.also = ?2)) AND
         (status IN ('pending', 'retrieved', 'downloading', 'installing', 'probation')
          OR (?3 AND status = 'succeeded')) LIMIT 1",
    )
    .bind(device)
    .bind(module)
    .bind(also_installed)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// DDI's word for a module type: hawkBit's `application` is `bApp`, its `runtime` is `jvm`.
pub(crate) fn part(kind: &str) -> &str {
    match kind {
        "application" => ddi::RELEASE_PART,
        "runtime" => "jvm",
        other => other,
    }
}
