//! `GET /api/v1/devices`.

use axum::{Json, extract::State};
use pytheas_api::{DeviceState, DeviceView};
use serde::Deserialize;

use crate::{
    app::App,
    auth::Viewer,
    reply::{ApiResult, Query},
};

/// Which devices.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(crate) struct ListQuery {
    /// Only those in this state.
    #[param(inline)]
    state: Option<DeviceState>,
    /// Only those behind this id.
    after: Option<String>,
    /// At most so many (default 1000, at most 10000).
    limit: Option<u32>,
}

/// List the devices, by id
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", params(ListQuery),
    responses((status = 200, body = Vec<DeviceView>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _viewer: Viewer,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<DeviceView>>> {
    let limit = query.limit.unwrap_or(1000).clamp(1, 10_000) as usize;
    let mut after = query.after.unwrap_or_default();
    let mut found = Vec::new();
    // The state is known here, not in the database: read on until there are enough of it.
    loop {
        let views = super::views(&app, &after, limit as u32).await?;
        let Some(last) = views.last() else { break };
        after = last.id.to_string();
        let wanted = |view: &DeviceView| query.state.is_none_or(|state| view.state == state);
        found.extend(views.into_iter().filter(wanted));
        if found.len() >= limit || query.state.is_none() {
            break;
        }
    }
    found.truncate(limit);
    Ok(Json(found))
}
