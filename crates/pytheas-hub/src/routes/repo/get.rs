//! `GET`/`HEAD /repo/{path}`: a file of the repository, with ranges.

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};

use super::{RepoFile, offered};
use crate::{
    app::App,
    auth,
    origin::Origin,
    serve::{self, Facts},
    traffic::Meter,
};

/// Caches may keep it for ever: another content has another name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A file of the repository.
pub(crate) async fn handle(
    State(app): State<App>,
    meter: Option<Extension<Meter>>,
    origin: Origin,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    auth::attribute(&app, &headers, meter.as_deref()).await;
    let Some((file, location)) = RepoFile::parse(&path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let json = "application/json";
    let facts = match file {
        RepoFile::Timestamp => Facts {
            content_type: json,
            cache_control: Some("no-cache"),
            ..Facts::default()
        },
        RepoFile::Metadata { .. } => Facts {
            content_type: json,
            cache_control: Some(IMMUTABLE),
            ..Facts::default()
        },
        RepoFile::Offered { from, to } => {
            return offered::handle(&app, &origin, &headers, from, to).await;
        }
        RepoFile::Target { sha256 } | RepoFile::Blob { sha256 } => Facts {
            etag: Some(sha256.to_string()),
            content_type: "application/octet-stream",
            cache_control: Some(IMMUTABLE),
            ..Facts::default()
        },
    };
    serve::file(&app.releases.objects, &location, facts, &headers).await
}
