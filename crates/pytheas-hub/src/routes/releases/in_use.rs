//! `GET /api/v1/releases/in-use`.

use axum::{Json, extract::State, http::HeaderMap};
use pytheas_api::{InUseView, Role};
use serde::Deserialize;

use crate::{
    app::App,
    auth,
    reply::{ApiResult, Query},
    store::in_use,
};

/// Which releases.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct InUseQuery {
    /// Only those of this app.
    name: Option<String>,
    /// Only on devices of this platform.
    platform: Option<String>,
}

/// List what accepted devices say they run, by how many do, the most first (at most 1000)
///
/// Publishers may ask, too: they make deltas from these releases.
#[utoipa::path(get, path = "/api/v1/releases/in-use", tag = "releases", params(InUseQuery),
    responses((status = 200, body = Vec<InUseView>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<InUseQuery>,
) -> ApiResult<Json<Vec<InUseView>>> {
    auth::bearer_of(&app, &headers, Role::Viewer, &[Role::Publisher]).await?;
    let (name, platform) = (query.name.as_deref(), query.platform.as_deref());
    Ok(Json(
        in_use::releases(&app.store.read, name, platform).await?,
    ))
}
