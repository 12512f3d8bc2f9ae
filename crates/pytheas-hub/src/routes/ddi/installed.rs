//! `GET …/installedBase/{action}`: what was installed by a closed action.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use pytheas_api::ActionStatus;

use super::{answer, broken, deployment, named};
use crate::{app::App, auth::Device};

/// The same shape as a deployment; unknown while the action is open, or when it was cancelled.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    Query(query): Query<deployment::HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let wanted = |status: ActionStatus| status.is_closed() && status != ActionStatus::Cancelled;
    let action = named(&app, &device, &action, wanted).await?;
    let base = deployment::base(&app, &device.root, &action, &query).await;
    Ok(answer(&headers, &base.map_err(broken)?))
}
