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

use super::{answer, named};
use crate::{app::App, auth::Device};

/// The action to stop; unknown unless it is being, or was, cancelled.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    use ActionStatus::{Cancelled, Cancelling};
    let wanted = |status| matches!(status, Cancelling | Cancelled);
    let id = named(&app, &device, &action, wanted).await?.id.to_string();
    let cancel_action = CancelTarget {
        stop_id: id.clone(),
    };
    Ok(answer(&headers, &CancelAction { id, cancel_action }))
}
