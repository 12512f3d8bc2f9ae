//! `DELETE /api/v1/devices/{id}`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use pytheas_api::ErrorBody;

use crate::{app::App, auth::Operator, reply::ApiResult};

/// Remove a device with its token, attributes and history; rollouts go on without it
#[utoipa::path(delete, path = "/api/v1/devices/{id}", tag = "devices",
    params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id = super::id(&id)?;
    if !app.engine.remove_device(&id, &person.name).await? {
        return Err(super::unknown(id.as_str()));
    }
    app.presence.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}
