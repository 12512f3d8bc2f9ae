//! `GET …/cancelAction/{action}`: what to give up.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use pytheas_api::{
    ActionStatus,
    ddi::{CancelAction, CancelTarget},
};

use super::{action_id, answer, unknown};
use crate::{app::App, auth::Device, reply::ApiError, store::actions};

/// The action to stop; unknown unless it is being, or was, cancelled.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = match action_id(&action) {
        Ok(id) => id,
        Err(response) => return Ok(response),
    };
    let cancelled = actions::of_device(&app.store.read, &device.id, id)
        .await?
        .filter(|action| {
            matches!(
                action.status,
                ActionStatus::Cancelling | ActionStatus::Cancelled
            )
        });
    let Some(action) = cancelled else {
        return Ok(unknown("action"));
    };
    let id = action.id.to_string();
    let cancel_action = CancelTarget {
        stop_id: id.clone(),
    };
    Ok(answer(&headers, &CancelAction { id, cancel_action }))
}
