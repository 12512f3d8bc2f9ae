//! `POST /api/v1/config/rollback`.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{ConfigRevision, ConfigRollback, ErrorBody};

use super::change;
use crate::{
    app::App,
    auth::Operator,
    reply::{ApiError, ApiResult, Body},
    store::fleet_config,
};

/// Bring a layer back to what it was at a revision, as a new revision
#[utoipa::path(post, path = "/api/v1/config/rollback", tag = "config", request_body = ConfigRollback,
    responses((status = 200, body = ConfigRevision), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Body(wanted): Body<ConfigRollback>,
) -> ApiResult<Json<ConfigRevision>> {
    let mut tx = app.store.begin().await?;
    let number = wanted.revision;
    let Some(then) = fleet_config::one(&mut *tx, number).await? else {
        return Err(ApiError::unknown("revision", &number.to_string())
            .help("`pytheas config history` shows them"));
    };
    let layer = wanted.layer.unwrap_or(then.layer);
    let settings = fleet_config::layer_at(&mut *tx, &layer, number).await?;
    let note = match wanted.note.as_str() {
        "" => format!("back to revision {number}"),
        note => note.to_owned(),
    };
    let Some(made) = change::put(&app, &mut tx, &layer, settings, &person.name, &note).await?
    else {
        let message = format!("settings of `{layer}` are as they were at revision {number}");
        return Err(ApiError::new(StatusCode::CONFLICT, "unchanged", message)
            .help("`pytheas config history` shows which revision changed what"));
    };
    change::tell(&app, tx, std::slice::from_ref(&made)).await?;
    Ok(Json(made))
}
