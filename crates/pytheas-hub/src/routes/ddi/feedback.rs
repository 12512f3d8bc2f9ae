//! `POST …/deploymentBase/{action}/feedback` and `…/cancelAction/{action}/feedback`: the device
//! reports.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pytheas_api::ddi::Feedback;

use super::{action_id, parse};
use crate::{app::App, auth::Device, engine::Base};

type ActionPath = Path<(String, String, String)>;

/// A report on an assignment.
pub(crate) async fn deployment(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): ActionPath,
    body: Bytes,
) -> Result<Response, Response> {
    take(&app, &device, &action, Base::Deployment, &body).await
}

/// A report on a cancellation.
pub(crate) async fn cancel(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): ActionPath,
    body: Bytes,
) -> Result<Response, Response> {
    take(&app, &device, &action, Base::Cancel, &body).await
}

async fn take(
    app: &App,
    device: &Device,
    action: &str,
    base: Base,
    body: &[u8],
) -> Result<Response, Response> {
    let id = action_id(action)?;
    let feedback: Feedback = parse(body)?;
    app.engine.report(&device.id, id, base, &feedback).await?;
    Ok(StatusCode::OK.into_response())
}
