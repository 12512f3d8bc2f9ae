//! `POST /api/v1/rollouts/{id}/pause|resume|abort`.

use axum::{
    Json,
    extract::{Path, State},
};
use pytheas_api::{ErrorBody, RolloutDetail};

use crate::{
    app::{App, Shared},
    auth::Operator,
    engine::Command,
    reply::ApiResult,
};

/// Pause a rollout: nothing new starts
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/pause", tag = "rollouts",
    params(("id" = i64, Path)),
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn pause(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
) -> ApiResult<Json<RolloutDetail>> {
    run(&app, &id, Command::Pause, &person.name).await
}

/// Let a paused rollout go on, accepting the failures so far
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/resume", tag = "rollouts",
    params(("id" = i64, Path)),
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn resume(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
) -> ApiResult<Json<RolloutDetail>> {
    run(&app, &id, Command::Resume, &person.name).await
}

/// Take a rollout back from every device that has not ended
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/abort", tag = "rollouts",
    params(("id" = i64, Path)),
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn abort(
    State(app): State<App>,
    Operator(person): Operator,
    Path(id): Path<String>,
) -> ApiResult<Json<RolloutDetail>> {
    run(&app, &id, Command::Abort, &person.name).await
}

async fn run(
    app: &Shared,
    id: &str,
    command: Command,
    actor: &str,
) -> ApiResult<Json<RolloutDetail>> {
    let number = super::id(id)?;
    if !app.engine.command(number, command, actor).await? {
        return Err(super::unknown(id));
    }
    Ok(Json(super::detail(app, number).await?))
}
