//! `GET /api/v1/tokens`.

use axum::{Json, extract::State};
use pytheas_api::TokenView;

use crate::{app::App, auth::Admin, reply::ApiResult, store::tokens};

/// List the tokens, without their secrets
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = Vec<TokenView>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _admin: Admin,
) -> ApiResult<Json<Vec<TokenView>>> {
    Ok(Json(tokens::list(&app.store.read).await?))
}
