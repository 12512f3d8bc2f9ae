//! hawkBit's device API (DDI v1): see `pytheas_api::ddi` for what is said on it.
//!
//! Invariants that clients rely on: JSON answers carry their length and are never chunked; PUT and
//! POST answer 200 with an empty body, never 201 or 204; one link at a time, `cancelAction` before
//! `deploymentBase`, `confirmationBase` instead of it; `update` is never `skip` (SWUpdate takes it as done); links repeat the case in
//! which the tenant was written (Zephyr compares it).

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use pytheas_api::ActionStatus;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app::{App, Shared},
    auth::Device,
    engine::ReportError,
    reply::ApiError,
    secret,
    store::actions::{self, Action},
};

pub(crate) mod artifacts;
pub(crate) mod cancel;
pub(crate) mod configure;
pub(crate) mod confirmation;
pub(crate) mod deployment;
pub(crate) mod feedback;
pub(crate) mod installed;
pub(crate) mod poll;

/// Below `/{tenant}/controller/v1/{id}`.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/", get(poll::handle))
        .route("/configData", put(configure::handle))
        .route("/deploymentBase/{action}", get(deployment::handle))
        .route(
            "/deploymentBase/{action}/feedback",
            post(feedback::deployment),
        )
        .route("/cancelAction/{action}", get(cancel::handle))
        .route("/cancelAction/{action}/feedback", post(feedback::cancel))
        .route("/confirmationBase", get(confirmation::root))
        .route(
            "/confirmationBase/activateAutoConfirm",
            post(confirmation::activate),
        )
        .route(
            "/confirmationBase/deactivateAutoConfirm",
            post(confirmation::deactivate),
        )
        .route("/confirmationBase/{action}", get(confirmation::base))
        .route(
            "/confirmationBase/{action}/feedback",
            post(confirmation::feedback),
        )
        .route("/installedBase/{action}", get(installed::handle))
        .route("/softwaremodules/{module}/artifacts", get(artifacts::list))
        .route(
            "/softwaremodules/{module}/artifacts/{filename}",
            get(artifacts::download),
        )
}

/// An error body as DDI clients may read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DdiError {
    error_code: &'static str,
    message: String,
}

/// A failed DDI call.
pub(crate) fn failed(
    status: StatusCode,
    code: &'static str,
    message: impl Into<String>,
) -> Response {
    (
        status,
        axum::Json(DdiError {
            error_code: code,
            message: message.into(),
        }),
    )
        .into_response()
}

/// 404 for whatever the device has no business with.
pub(crate) fn unknown(what: &str) -> Response {
    failed(
        StatusCode::NOT_FOUND,
        "pytheas.unknown",
        format!("no such {what}"),
    )
}

/// The device's action that a path names, when its status is `wanted`; 404 for all others.
pub(crate) async fn named(
    app: &Shared,
    device: &Device,
    number: &str,
    wanted: impl FnOnce(ActionStatus) -> bool,
) -> Result<Action, Response> {
    let id = action_id(number)?;
    let found = actions::of_device(&app.store.read, &device.id, id).await;
    let found = found.map_err(broken)?;
    let fits = found.filter(|action| wanted(action.status));
    fits.ok_or_else(|| unknown("action"))
}

/// The database does not answer.
pub(crate) fn broken(error: sqlx::Error) -> Response {
    ApiError::from(error).into_response()
}

impl From<ReportError> for Response {
    fn from(error: ReportError) -> Self {
        let (status, code) = match &error {
            ReportError::Unknown => (StatusCode::NOT_FOUND, "pytheas.unknown"),
            ReportError::Closed => (StatusCode::GONE, "pytheas.closed"),
            ReportError::NotCancelling => {
                (StatusCode::METHOD_NOT_ALLOWED, "pytheas.not-cancelling")
            }
            ReportError::TooMany => (StatusCode::TOO_MANY_REQUESTS, "pytheas.quota"),
            ReportError::Store(source) => return ApiError::internal(source).into_response(),
        };
        failed(status, code, error.to_string())
    }
}

/// A JSON answer: HAL when asked for, with an entity tag, 304 when the client has it.
pub(crate) fn answer<T: Serialize>(request: &HeaderMap, value: &T) -> Response {
    let body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => return ApiError::internal(&error).into_response(),
    };
    let text = |name| {
        request
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let etag = format!(
        "\"{}\"",
        hex::encode(&secret::hash(&String::from_utf8_lossy(&body))[..12])
    );
    if text(header::IF_NONE_MATCH).is_some_and(|list| list.split(',').any(|tag| tag.trim() == etag))
    {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let hal = text(header::ACCEPT).is_some_and(|accept| accept.contains("application/hal+json"));
    let content_type = if hal {
        "application/hal+json"
    } else {
        "application/json"
    };
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::ETAG, etag),
    ];
    (headers, body).into_response()
}

/// A JSON body, whatever `Content-Type` says.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body).map_err(|error| {
        failed(
            StatusCode::BAD_REQUEST,
            "pytheas.malformed",
            error.to_string(),
        )
    })
}

/// An action's number in a path; anything else is as unknown as a number nobody has.
pub(crate) fn action_id(text: &str) -> Result<i64, Response> {
    text.parse()
        .ok()
        .filter(|id| (1..=i64::from(i32::MAX)).contains(id))
        .ok_or_else(|| unknown("action"))
}
