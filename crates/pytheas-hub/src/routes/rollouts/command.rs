//! `POST /api/v1/rollouts/{id}/pause|resume|abort`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use pytheas_api::{ErrorBody, RolloutDetail};

use crate::{
    app::{App, Shared},
    auth::Operator,
    engine::{Answer, Command},
    reply::{ApiError, ApiResult},
};

/// Pause a rollout: nothing new starts
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/pause", tag = "rollouts",
    params(("id" = i64, Path)),
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody),
        (status = 409, description = "it has ended", body = ErrorBody)),
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
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody),
        (status = 409, description = "it has ended", body = ErrorBody)),
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
    responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody),
        (status = 409, description = "it has ended", body = ErrorBody)),
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
    let number = carry_out(app, id, command, actor).await?;
    Ok(Json(super::detail(app, number).await?))
}

/// Carries out what a person asks; the rollout's number.
pub(crate) async fn carry_out(
    app: &Shared,
    id: &str,
    command: Command,
    actor: &str,
) -> ApiResult<i64> {
    let number = super::id(id)?;
    match app.engine.command(number, command, actor).await? {
        Answer::Done => Ok(number),
        Answer::Unknown => Err(super::unknown(id)),
        Answer::Over(state) => {
            let message = format!("the rollout {number} is {} already", state.as_str());
            Err(ApiError::new(StatusCode::CONFLICT, "rollout-over", message)
                .help("what ended stays as it is; start a new rollout"))
        }
    }
}
