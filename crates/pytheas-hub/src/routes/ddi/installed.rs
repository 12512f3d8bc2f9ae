//! `GET …/installedBase/{action}`: what was installed by a closed action.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use pytheas_api::ActionStatus;

use super::{action_id, answer, deployment, unknown};
use crate::{app::App, auth::Device, reply::ApiError, store::actions};

/// The same shape as a deployment; unknown while the action is open, or when it was cancelled.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    Query(query): Query<deployment::HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = match action_id(&action) {
        Ok(id) => id,
        Err(response) => return Ok(response),
    };
    let closed = actions::of_device(&app.store.read, &device.id, id)
        .await?
        .filter(|action| action.status.is_closed() && action.status != ActionStatus::Cancelled);
    let Some(action) = closed else {
        return Ok(unknown("action"));
    };
    let wanted = query.action_history.unwrap_or(0);
    Ok(answer(
        &headers,
        &deployment::base(&app, &device.root, &action, wanted).await?,
    ))
}
