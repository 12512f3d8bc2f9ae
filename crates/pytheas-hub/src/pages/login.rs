//! `/login`, `/logout`: a token is exchanged for a session.

use axum::{
    Form,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use pytheas_api::Role;
use serde::Deserialize;

use super::{
    forms::{FormWord, same_site},
    layout,
};
use crate::{
    app::App,
    auth::{COOKIE, Session, covers, session_cookie},
    origin::Origin,
    reply::{ApiError, ApiResult},
    secret,
    store::{audit, tokens},
};

/// How long a session lasts.
const SESSION_S: i64 = 12 * 3600;

fn form(error: Option<&str>) -> Markup {
    html! {
        main.login {
            h1 { "Pytheas" }
            @if let Some(error) = error { p role="alert" { (error) } }
            form method="post" action="/login" {
                label for="token" { "Token" }
                input #token type="password" name="token" autocomplete="current-password" required autofocus;
                button.main { "Log in" }
            }
            p.soft { "The first token was shown when this hub first started." }
        }
    }
}

/// The login page.
pub(crate) async fn show() -> Response {
    layout::bare(StatusCode::OK, "Log in", form(None))
}

/// What the login page sends.
#[derive(Deserialize)]
pub(crate) struct Login {
    token: String,
}

/// Begins a session.
pub(crate) async fn enter(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> ApiResult<Response> {
    let refuse = |status, why: &str| Ok(layout::bare(status, "Log in", form(Some(why))));
    if !same_site(&headers) {
        return refuse(StatusCode::FORBIDDEN, "This form was sent by another site.");
    }
    let now_ms = app.now_ms();
    if !app.logins.allows(origin.client, now_ms) {
        let why = "Too many wrong tokens; wait a minute.";
        return refuse(StatusCode::TOO_MANY_REQUESTS, why);
    }
    let hash = secret::hash(login.token.trim());
    let Some(token) = tokens::by_hash(&app.store.read, hash).await? else {
        app.logins.count(origin.client, now_ms);
        tracing::warn!(client = %origin.client, "a wrong token at the login page");
        return refuse(
            StatusCode::UNAUTHORIZED,
            "The hub does not know this token.",
        );
    };
    if !covers(token.role, Role::Viewer) {
        return refuse(StatusCode::FORBIDDEN, "This token is for publishing only.");
    }
    let session = secret::new("").map_err(|error| ApiError::internal(&error))?;
    let expires_ms = now_ms + SESSION_S * 1000;
    let mut tx = app.store.begin().await?;
    let hash = secret::hash(&session);
    tokens::begin_session(&mut tx, token.id, hash, now_ms, expires_ms).await?;
    tokens::used(&mut tx, token.id, now_ms).await?;
    audit::note(&mut tx, now_ms, &token.name, "session.begin", "", "").await?;
    tx.commit().await?;
    let secure = if origin.is_tls() { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/; Max-Age={SESSION_S}{secure}"
    );
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

/// Ends the session.
pub(crate) async fn leave(
    State(app): State<App>,
    session: Session,
    headers: HeaderMap,
    Form(word): Form<FormWord>,
) -> ApiResult<Response> {
    word.check(&session, &headers)?;
    if let Some(secret) = session_cookie(&headers) {
        let mut tx = app.store.begin().await?;
        tokens::end_session(&mut tx, secret::hash(secret)).await?;
        tx.commit().await?;
    }
    let cookie = format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}
