//! Pages for people: rendered here, updated in place when something happens.
//!
//! The browser holds a session cookie (HttpOnly, SameSite=Strict) instead of the token; every form
//! carries a word bound to the session. Scripts and styles are two constants named by hash in the
//! content security policy, so nothing a device says can become code even if it got past the
//! escaping.

use axum::{
    Router, middleware,
    response::Response,
    routing::{get, post},
};
use pytheas_api::ErrorDetail;

use crate::{app::App, routes::events};

pub(crate) mod device;
mod device_config;
pub(crate) mod forms;
pub(crate) mod layout;
pub(crate) mod login;
pub(crate) mod new_rollout;
pub(crate) mod overview;
pub(crate) mod parts;
pub(crate) mod rollout;

/// The pages' routes.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/", get(overview::handle))
        .route("/login", get(login::show).post(login::enter))
        .route("/logout", post(login::leave))
        .route("/events", get(events::for_session))
        .route("/devices/{id}", get(device::handle))
        .route("/devices/{id}/accept", post(forms::accept))
        .route(
            "/rollouts/new",
            get(new_rollout::show).post(new_rollout::start),
        )
        .route("/rollouts/{id}", get(rollout::handle))
        .route("/rollouts/{id}/pause", post(forms::pause))
        .route("/rollouts/{id}/resume", post(forms::resume))
        .route("/rollouts/{id}/abort", post(forms::abort))
        .layer(middleware::map_response(readable))
}

/// What failed, for people instead of programs.
async fn readable(response: Response) -> Response {
    match response.extensions().get::<ErrorDetail>() {
        Some(error) => layout::failed(response.status(), error),
        None => response,
    }
}
