//! `DELETE /api/v1/enrolment-keys/{id}`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use pytheas_api::ErrorBody;

use crate::{
    app::App,
    auth::Admin,
    reply::{ApiError, ApiResult},
    store::{audit, enrolment_keys},
};

/// Take an enrolment key away; devices it accepted stay accepted
#[utoipa::path(delete, path = "/api/v1/enrolment-keys/{id}", tag = "enrolment",
    params(("id" = i64, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Admin(person): Admin,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let unknown = || ApiError::unknown("enrolment key", &id);
    let number = id.parse().map_err(|_| unknown())?;
    let mut tx = app.store.begin().await?;
    if !enrolment_keys::remove(&mut tx, number).await? {
        return Err(unknown());
    }
    let now_ms = app.now_ms();
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "enrolment-key.revoke",
        &id,
        "",
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
