//! `POST /api/v1/rollouts`.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{ErrorBody, RolloutDetail, RolloutRequest};

use crate::{
    app::App,
    auth::Operator,
    launch,
    reply::{ApiResult, Body},
};

/// Start a rollout
#[utoipa::path(post, path = "/api/v1/rollouts", tag = "rollouts", request_body = RolloutRequest,
    responses((status = 201, body = RolloutDetail),
        (status = 404, description = "no such release or artifact", body = ErrorBody),
        (status = 422, description = "it cannot be carried out", body = ErrorBody),
        (status = 503, description = "the repository does not verify", body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Operator(person): Operator,
    Body(request): Body<RolloutRequest>,
) -> ApiResult<(StatusCode, Json<RolloutDetail>)> {
    let new = launch::prepare(&app, &request).await?;
    let id = app.engine.start(new, &person.name).await?;
    Ok((StatusCode::CREATED, Json(super::detail(&app, id).await?)))
}
