//! `POST /api/v1/tokens`.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{ErrorBody, NewToken, TOKEN_PREFIX, TokenRequest};

use crate::{
    app::App,
    auth::Admin,
    reply::{ApiError, ApiResult, Body, printable},
    secret,
    store::{audit, tokens},
};

/// Make a token; the only time it is told
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = NewToken), (status = 403, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Admin(person): Admin,
    Body(request): Body<TokenRequest>,
) -> ApiResult<(StatusCode, Json<NewToken>)> {
    let name = printable("token", &request.name)?;
    if name.is_empty() {
        return Err(ApiError::invalid("a token has a name"));
    }
    let token = secret::new(TOKEN_PREFIX).map_err(|error| ApiError::internal(&error))?;
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    let info = tokens::add(&mut tx, name, request.role, secret::hash(&token), now_ms).await?;
    let (subject, detail) = (info.id.to_string(), format!("`{name}`, {}", info.role));
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "token.create",
        &subject,
        &detail,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(NewToken { token, info })))
}
