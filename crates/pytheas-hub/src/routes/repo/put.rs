//! `PUT /repo/{path}`: a publisher writes a file of the repository.
//!
//! Files never change, except the timestamp, which only ever gets a newer version; the same bytes
//! once more are fine (a retry after a lost answer). What differs is refused with 412, which
//! `object_store` clients understand as "somebody was faster".

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use object_store::{ObjectStoreExt, path::Path as Location};
use pytheas_api::EventKind;
use pytheas_repo::garbage;
use serde::Deserialize;

use super::RepoFile;
use crate::{
    app::{App, Shared},
    artifacts::{self, Received, full},
    auth::Publisher,
    jobs::renewal,
    reply::{ApiError, ApiResult},
    store::audit,
    traffic::Meter,
};

/// Longest metadata file, in bytes.
const METADATA_MAX: u64 = 16 << 20;

/// Write a file of the repository
pub(crate) async fn handle(
    State(app): State<App>,
    Publisher(person): Publisher,
    _meter: Option<Extension<Meter>>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let parsed = RepoFile::parse(&path).filter(|(f, _)| !matches!(f, RepoFile::Offered { .. }));
    let Some((file, location)) = parsed else {
        let message = format!("`{path}` is no file of a repository");
        return Err(
            ApiError::new(StatusCode::BAD_REQUEST, "bad-path", message).help(
                "metadata/N.ROLE.json, metadata/timestamp.json, targets/…/HASH.NAME, blobs/HH/HASH",
            ),
        );
    };
    let is_metadata = matches!(file, RepoFile::Timestamp | RepoFile::Metadata { .. });
    let limit = if is_metadata {
        METADATA_MAX
    } else {
        app.config.upload_limit_bytes
    };
    let folder = match app.config.repo_folder() {
        Some(repo) => repo.join(".incoming"),
        None => app.config.incoming(),
    };
    let received = artifacts::receive(&folder, &path, body, limit).await?;
    check(&file, &path, &received).await?;

    let _one_at_a_time = app.publishing.lock().await;
    let _no_other_process = if is_metadata {
        Some(app.releases.store.lock().map_err(|error| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string()).retry_after(1)
        })?)
    } else {
        None
    };
    let only_new = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value == "*");
    match current(&app, &file, &location, &received).await? {
        Current::Same if !only_new => return Ok(StatusCode::NO_CONTENT.into_response()),
        Current::Same | Current::Other(_) if only_new => {
            return Err(refused(format!("`{path}` is there already")));
        }
        Current::Other(why) => return Err(refused(why)),
        Current::Same | Current::None | Current::Older => {}
    }
    write(&app, &location, received).await?;
    if is_metadata {
        let now_ms = app.now_ms();
        let mut tx = app.store.begin().await?;
        audit::note(&mut tx, now_ms, &person.name, "repo.put", &path, "").await?;
        tx.commit().await?;
    }
    match &file {
        RepoFile::Timestamp => app.bus.publish(EventKind::ReleasesChanged),
        // A team's releases are seen once a snapshot lists them. `publishing` is held here.
        RepoFile::Metadata { role, .. }
            if !matches!(role.as_str(), "root" | "targets" | "snapshot") =>
        {
            let app = app.clone();
            tokio::spawn(async move { renewal::run(&app).await });
        }
        _ => {}
    }
    Ok(StatusCode::CREATED.into_response())
}

fn refused(why: String) -> ApiError {
    ApiError::new(StatusCode::PRECONDITION_FAILED, "not-replaced", why)
        .help("somebody else published meanwhile; publish again")
}

/// What is common to all metadata, as far as the hub looks at it.
#[derive(Debug, Deserialize)]
struct Metadata {
    signed: Signed,
    #[serde(rename = "signatures")]
    _signatures: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Signed {
    #[serde(rename = "_type")]
    kind: String,
    version: u64,
}

fn metadata(bytes: &[u8]) -> Result<Signed, String> {
    serde_json::from_slice::<Metadata>(bytes)
        .map(|metadata| metadata.signed)
        .map_err(|error| format!("it is no TUF metadata: {error}"))
}

async fn check(file: &RepoFile, path: &str, received: &Received) -> ApiResult<()> {
    let wrong = |why: String| ApiError::invalid(format!("`{path}` is not stored: {why}"));
    let expected = match file {
        RepoFile::Target { sha256 } | RepoFile::Blob { sha256 } => {
            let found = &received.file.sha256;
            return if *found == sha256.to_string() {
                Ok(())
            } else {
                Err(wrong(format!("its bytes have the SHA-256 {found}")))
            };
        }
        RepoFile::Offered { .. } => return Err(wrong("the hub makes it itself".into())),
        RepoFile::Timestamp => ("timestamp", None),
        RepoFile::Metadata { role, version } => match role.as_str() {
            "root" | "snapshot" => (role.as_str(), Some(*version)),
            _ => ("targets", Some(*version)), // a team's are targets metadata, too
        },
    };
    let bytes = received.bytes().await.map_err(|error| full(&error))?;
    let signed = metadata(&bytes).map_err(wrong)?;
    if signed.kind != expected.0 || expected.1.is_some_and(|version| version != signed.version) {
        return Err(wrong(format!(
            "it is {} version {}",
            signed.kind, signed.version
        )));
    }
    Ok(())
}

enum Current {
    /// Nothing is there.
    None,
    /// The same bytes are there.
    Same,
    /// An older timestamp is there.
    Older,
    /// Something is there that stays.
    Other(String),
}

async fn current(
    app: &Shared,
    file: &RepoFile,
    location: &Location,
    received: &Received,
) -> ApiResult<Current> {
    let objects = &app.releases.objects;
    let internal = |error: object_store::Error| ApiError::internal(&error);
    let meta = match objects.head(location).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(Current::None),
        other => other.map_err(internal)?,
    };
    if matches!(file, RepoFile::Target { .. } | RepoFile::Blob { .. }) {
        // The name is the hash; another length means that it was damaged: write it anew. So is
        // what has lain there for long, since it may be garbage that is about to be removed.
        let age_ms = app.now_ms() - meta.last_modified.timestamp_millis();
        let is_good = meta.size == received.file.size_bytes
            && i128::from(age_ms) < garbage::REUSED.as_millis();
        return Ok(if is_good {
            Current::Same
        } else {
            Current::None
        });
    }
    let there: Bytes = objects
        .get(location)
        .await
        .map_err(internal)?
        .bytes()
        .await
        .map_err(internal)?;
    let fresh = received.bytes().await.map_err(|error| full(&error))?;
    if there == fresh {
        return Ok(Current::Same);
    }
    if *file != RepoFile::Timestamp {
        return Ok(Current::Other(format!(
            "`{location}` is there with another content"
        )));
    }
    let version = |bytes: &[u8]| metadata(bytes).map_or(0, |signed| signed.version);
    let (old, new) = (version(&there), version(&fresh));
    Ok(if new > old {
        Current::Older
    } else {
        Current::Other(format!(
            "the timestamp that is there has version {old}, yours {new}"
        ))
    })
}

async fn write(app: &Shared, location: &Location, received: Received) -> ApiResult<()> {
    if let Some(repo) = app.config.repo_folder() {
        let to = repo.join(location.as_ref());
        return received.keep(to).await.map_err(|error| full(&error));
    }
    let bytes = received.bytes().await.map_err(|error| full(&error))?;
    let put = app.releases.objects.put(location, bytes.into()).await;
    put.map(drop).map_err(|error| ApiError::internal(&error))
}
