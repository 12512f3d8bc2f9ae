//! `DELETE /api/v1/tokens/{id}`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use pytheas_api::ErrorBody;

use crate::{
    app::App,
    auth::Admin,
    reply::{ApiError, ApiResult},
    store::{audit, tokens},
};

/// Revoke a token, the sessions of its browsers with it
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = i64, Path)),
    responses((status = 204), (status = 404, body = ErrorBody),
        (status = 409, description = "it is the last administrator's", body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Admin(person): Admin,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let number = id.parse().map_err(|_| ApiError::unknown("token", &id))?;
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    let Some(gone) = tokens::remove(&mut tx, number).await? else {
        return Err(ApiError::unknown("token", &id));
    };
    if tokens::admins(&mut tx).await? == 0 {
        let message = format!("`{}` is the last administrator's token", gone.name);
        return Err(ApiError::new(StatusCode::CONFLICT, "last-admin", message)
            .help("make another one first, or nobody could ever make one"));
    }
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "token.revoke",
        &id,
        &gone.name,
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
