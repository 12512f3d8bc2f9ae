//! The database: SQLite in WAL mode, one writer, many readers; one file a noun below.
//!
//! Every change is one transaction of the writer, begun `IMMEDIATE`, with its audit row in it.
//! Functions of the nouns take the connection they work on, so that callers compose them into
//! one transaction.

use std::{path::Path, time::Duration};

use miette::Diagnostic;
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use thiserror::Error;

pub(crate) mod actions;
pub(crate) mod audit;
pub(crate) mod devices;
pub(crate) mod enrolment_keys;
pub(crate) mod fleet_config;
pub(crate) mod in_use;
pub(crate) mod modules;
pub(crate) mod rollouts;
pub(crate) mod tokens;
pub(crate) mod traffic;

/// The writer's transaction.
pub(crate) type Tx = Transaction<'static, Sqlite>;

/// What a store function answers; the caller knows what it was doing.
pub(crate) type Result<T> = std::result::Result<T, sqlx::Error>;

/// Steps from an empty database to this program's; never changed, only added to.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_together.sql"),
    include_str!("../migrations/0003_config.sql"),
    include_str!("../migrations/0004_confirmation.sql"),
];

/// A database that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum StoreError {
    /// Not a database, or not readable.
    #[error("cannot open the database `{path}`")]
    #[diagnostic(
        code(pytheas::hub::database),
        help("is it a hub's database, and may this user write it and its folder?")
    )]
    Open {
        /// The file.
        path: String,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// Written by a newer program.
    #[error("the database `{path}` has format {found}; this program knows formats up to {known}")]
    #[diagnostic(
        code(pytheas::hub::database_newer),
        help(
            "start the newer `pytheas` that wrote it; an older one would lose what it does not know"
        )
    )]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: i64,
        /// The newest format of this program.
        known: i64,
    },
}

/// The hub's database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// For reading.
    pub(crate) read: SqlitePool,
    write: SqlitePool,
}

impl Store {
    /// Opens the database, makes it when missing, brings it to this program's format.
    pub(crate) async fn open(path: &Path) -> std::result::Result<Self, StoreError> {
        let shown = path.display().to_string();
        let failed = |source| StoreError::Open {
            path: shown.clone(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full) // a report that was answered is not forgotten
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true);
        private(path).map_err(|error| failed(sqlx::Error::Io(error)))?;
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        let known = MIGRATIONS.len() as i64;
        let found: i64 = sqlx::query("PRAGMA user_version")
            .fetch_one(&write)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        if found > known {
            return Err(StoreError::Newer {
                path: shown,
                found,
                known,
            });
        }
        for (index, sql) in MIGRATIONS
            .iter()
            .enumerate()
            .skip(usize::try_from(found).unwrap_or(0))
        {
            migrate(&write, index + 1, sql).await.map_err(failed)?;
        }
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(failed)?;
        Ok(Self { read, write })
    }

    /// Begins a change.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match self.write.begin_with(BEGIN).await {
            // SQLite itself takes back a transaction when the disk is full; `sqlx` does not see
            // it and counts it as open for ever. Only another connection helps.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let _it_is_out_of_step = self.write.acquire().await?.close().await;
                self.write.begin_with(BEGIN).await
            }
            other => other,
        }
    }

    /// Closes all connections; what was committed is on disk.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Makes the database its owner's alone before anything stands in it (SQLite gives its other files
/// the same mode); whoever made it with another mode has decided.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

async fn migrate(pool: &SqlitePool, number: usize, sql: &'static str) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(sql).execute(&mut *tx).await?;
    let set = format!("PRAGMA user_version = {number}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(set))
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// An identifier that was checked before it was stored; anything else is a damaged row.
pub(crate) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Stored JSON of our own making.
pub(crate) fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(dir: &Path) -> std::result::Result<Store, StoreError> {
        Store::open(&dir.join("hub.db")).await
    }

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 99")
            .execute(&store.write)
            .await
            .unwrap();
        store.close().await;
        let error = open(dir.path()).await.unwrap_err();
        let shown = error
            .to_string()
            .replace(&dir.path().display().to_string(), "[DATA]");
        insta::assert_snapshot!(shown, @"the database `[DATA]/hub.db` has format 99; this program knows formats up to 4");
    }

    #[tokio::test]
    async fn the_database_is_its_owners_alone_unless_somebody_decided_otherwise() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        let store = open(dir.path()).await.unwrap();
        assert_eq!((mode("hub.db"), mode("hub.db-wal")), (0o600, 0o600));
        store.close().await;
        let shared = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(dir.path().join("hub.db"), shared).unwrap();
        open(dir.path()).await.unwrap();
        assert_eq!(mode("hub.db"), 0o640);
    }

    #[tokio::test]
    async fn a_disk_that_was_full_is_forgotten_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.unwrap();
        let pages = async |count: u32| {
            let sql = format!("PRAGMA max_page_count = {count}");
            let set = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
            set.execute(&store.write).await.unwrap();
        };
        let fill = async || -> Result<()> {
            let mut tx = store.begin().await?;
            for at_ms in 0..100 {
                audit::note(&mut tx, at_ms, "ada", "a", "b", &"x".repeat(4000)).await?;
            }
            tx.commit().await
        };
        for _ in 0..2 {
            pages(60).await; // of this connection; another one has no limit
            let error = fill().await.unwrap_err();
            assert!(error.to_string().contains("full"), "{error}");
            store.begin().await.unwrap().rollback().await.unwrap();
        }
        fill().await.unwrap();
    }

    #[tokio::test]
    async fn opening_twice_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).await.unwrap().close().await;
        open(dir.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"not a database at all, but long enough to be read as one by somebody";
        pytheas_durable::replace(&dir.path().join("hub.db"), text).unwrap();
        let error = open(dir.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    }
}
