//! `GET …/softwaremodules/{module}/artifacts[/{filename}[.MD5SUM]]`: the files themselves.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use pytheas_api::ArtifactFile;

use super::{answer, deployment, unknown};
use crate::{
    app::App,
    auth::Device,
    reply::ApiError,
    serve::{self, Facts},
    store::{actions, modules},
};

/// The module's files, while it is assigned or installed.
pub(crate) async fn list(
    State(app): State<App>,
    device: Device,
    Path((_, _, module)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Ok(module) = module.parse::<i64>() else {
        return Ok(unknown("module"));
    };
    if !modules::assigned(&app.store.read, device.id.as_str(), module, true).await? {
        return Ok(unknown("module"));
    }
    Ok(answer(
        &headers,
        &deployment::artifacts(&app, &device.root, module).await?,
    ))
}

/// One file, while its module is assigned; a whole download is noted.
pub(crate) async fn download(
    State(app): State<App>,
    device: Device,
    method: Method,
    Path((_, _, module, filename)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Ok(module) = module.parse::<i64>() else {
        return Ok(unknown("module"));
    };
    if !modules::assigned(&app.store.read, device.id.as_str(), module, false).await? {
        return Ok(unknown("module"));
    }
    let files = modules::files(&app.store.read, module).await?;
    let named = |name: &str| files.iter().find(|file| file.filename == name);
    if let Some(file) = named(&filename) {
        if method == Method::GET && !headers.contains_key(header::RANGE) {
            let open = actions::open(&app.store.read, &device.id).await?;
            if let Some(action) = open.iter().find(|action| action.module == module) {
                app.engine.downloading(action, &file.filename).await?;
            }
        }
        return Ok(send(&app, file, &headers).await);
    }
    match filename.strip_suffix(".MD5SUM").and_then(named) {
        Some(file) => {
            let body = format!("{}  {}", file.md5, file.filename);
            let headers = [
                (header::CONTENT_TYPE, "text/plain".to_owned()),
                (
                    header::CONTENT_DISPOSITION,
                    format!("attachment;filename=\"{}.MD5SUM\"", file.filename),
                ),
            ];
            Ok((headers, body).into_response())
        }
        None => Ok(unknown("artifact")),
    }
}

async fn send(app: &App, file: &ArtifactFile, headers: &HeaderMap) -> Response {
    let facts = Facts {
        etag: Some(file.sha1.clone()),
        content_type: "application/octet-stream",
        cache_control: None,
        attachment: Some(file.filename.clone()),
    };
    serve::file(
        &app.artifacts,
        &crate::artifacts::path(&file.sha256),
        facts,
        headers,
    )
    .await
}
