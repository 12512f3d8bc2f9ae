//! `POST /api/v1/artifacts/{name}/{version}/{filename}?part=os`.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use pytheas_api::{ArtifactFile, ErrorBody, EventKind};
use pytheas_release::{Name, Version};
use serde::Deserialize;

use crate::{
    app::App,
    artifacts::{self, full},
    auth::Operator,
    reply::{ApiError, ApiResult, Query},
    store::{audit, modules},
};

/// Files of one artifact (hawkBit's limit).
const FILES_MAX: usize = 50;

/// What kind of software it is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct UploadQuery {
    /// DDI's `part`: `os` (default), `bApp`, `jvm`, …
    part: Option<String>,
}

/// Upload a file; the same bytes once more do nothing, others under its name are refused
#[utoipa::path(post, path = "/api/v1/artifacts/{name}/{version}/{filename}", tag = "artifacts",
    params(("name" = String, Path), ("version" = String, Path), ("filename" = String, Path), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = ArtifactFile), (status = 409, body = ErrorBody), (status = 413, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Path((name, version, filename)): Path<(String, String, String)>,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> ApiResult<(StatusCode, Json<ArtifactFile>)> {
    let invalid = |error: pytheas_release::NameError| ApiError::invalid(error.to_string());
    let name: Name = name.parse().map_err(invalid)?;
    let version: Version = version.parse().map_err(invalid)?;
    let filename: Name = filename.parse().map_err(invalid)?;
    let part: Name = query
        .part
        .as_deref()
        .unwrap_or("os")
        .parse()
        .map_err(invalid)?;
    let limit = app.config.upload_limit_bytes;
    let received =
        artifacts::receive(&app.config.incoming(), filename.as_str(), body, limit).await?;
    let file = received.file.clone();

    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    let module = modules::ensure(
        &mut tx,
        name.as_str(),
        version.as_str(),
        "",
        "",
        part.as_str(),
        now_ms,
    )
    .await?;
    let conflict =
        |message: String| ApiError::new(StatusCode::CONFLICT, "artifact-exists", message);
    if module.part != part.as_str() {
        let message = format!("`{name}@{version}` is a `{}`, not a `{part}`", module.part);
        return Err(conflict(message));
    }
    let files = modules::files(&mut *tx, module.id).await?;
    if let Some(known) = files.iter().find(|known| known.filename == file.filename) {
        if *known == file {
            return Ok((StatusCode::CREATED, Json(file)));
        }
        let message = format!("`{name}@{version}` has another `{filename}` already");
        return Err(conflict(message).help("what was uploaded stays as it is: use a new version"));
    }
    if files.len() >= FILES_MAX {
        return Err(ApiError::invalid(format!(
            "an artifact has at most {FILES_MAX} files"
        )));
    }
    let to = app
        .config
        .artifacts()
        .join(artifacts::path(&file.sha256).as_ref());
    received.keep(to).await.map_err(|error| full(&error))?;
    modules::put_file(&mut tx, module.id, &file).await?;
    let subject = format!("{name}@{version}");
    let detail = format!(
        "{filename}, {} bytes, sha256 {}",
        file.size_bytes, file.sha256
    );
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "artifact.upload",
        &subject,
        &detail,
    )
    .await?;
    tx.commit().await?;
    app.bus.publish(EventKind::ReleasesChanged);
    Ok((StatusCode::CREATED, Json(file)))
}
