//! `GET /api/v1/config`.

use axum::{Json, extract::State};
use pytheas_api::ConfigView;

use crate::{app::App, auth::Viewer, reply::ApiResult, store::fleet_config};

/// Show every layer of settings
#[utoipa::path(get, path = "/api/v1/config", tag = "config",
    responses((status = 200, body = ConfigView)), security(("token" = [])))]
pub(crate) async fn handle(State(app): State<App>, _viewer: Viewer) -> ApiResult<Json<ConfigView>> {
    // In one view of the database: the number is that of the layers shown.
    let mut tx = app.store.read.begin().await?;
    Ok(Json(ConfigView {
        revision: fleet_config::newest(&mut *tx).await?,
        layers: fleet_config::layers(&mut *tx).await?,
    }))
}
