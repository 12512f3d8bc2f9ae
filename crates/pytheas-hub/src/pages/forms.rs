//! The pages' buttons: the same changes as through the API, for operators with a session.

use axum::{
    Form,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Redirect,
};
use pytheas_api::Role;
use serde::Deserialize;

use crate::{
    app::{App, Shared},
    auth::{Session, allow},
    engine::Command,
    reply::{ApiError, ApiResult},
    routes::{devices, rollouts},
};

/// The word that every form carries.
#[derive(Debug, Deserialize)]
pub(crate) struct FormWord {
    word: String,
}

/// Whether a browser says that the form is ours (old ones say nothing; the word guards them).
pub(crate) fn same_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin" || site == "none")
}

impl FormWord {
    /// The word of a form that says more.
    pub(crate) fn of(word: &str) -> Self {
        Self {
            word: word.to_owned(),
        }
    }

    /// Refuses a form that another site sent.
    pub(crate) fn check(&self, session: &Session, headers: &HeaderMap) -> ApiResult<()> {
        if self.word == session.form_word && same_site(headers) {
            return Ok(());
        }
        let message = "the form was not sent by this hub's page";
        Err(ApiError::new(StatusCode::FORBIDDEN, "wrong-form", message)
            .help("load the page again and repeat"))
    }
}

fn operator(session: &Session, word: &FormWord, headers: &HeaderMap) -> ApiResult<()> {
    word.check(session, headers)?;
    allow(&session.token, Role::Operator)
}

/// Accepts a device.
pub(crate) async fn accept(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(word): Form<FormWord>,
) -> ApiResult<Redirect> {
    operator(&session, &word, &headers)?;
    devices::accept::accept(&app, &devices::id(&id)?, &session.token.name).await?;
    Ok(Redirect::to("/"))
}

/// Pauses a rollout.
pub(crate) async fn pause(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(word): Form<FormWord>,
) -> ApiResult<Redirect> {
    operator(&session, &word, &headers)?;
    command(&app, &session, &id, Command::Pause).await
}

/// Lets a rollout go on.
pub(crate) async fn resume(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(word): Form<FormWord>,
) -> ApiResult<Redirect> {
    operator(&session, &word, &headers)?;
    command(&app, &session, &id, Command::Resume).await
}

/// Takes a rollout back.
pub(crate) async fn abort(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(word): Form<FormWord>,
) -> ApiResult<Redirect> {
    operator(&session, &word, &headers)?;
    command(&app, &session, &id, Command::Abort).await
}

async fn command(
    app: &Shared,
    session: &Session,
    id: &str,
    command: Command,
) -> ApiResult<Redirect> {
    let number = rollouts::command::carry_out(app, id, command, &session.token.name).await?;
    Ok(Redirect::to(&format!("/rollouts/{number}")))
}
