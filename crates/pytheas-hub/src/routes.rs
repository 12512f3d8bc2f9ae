//! All routes; one file a verb below, one folder a noun.

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};

use crate::{app::App, pages, reply::ApiError, traffic};

pub(crate) mod artifacts;
pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod ddi;
pub(crate) mod devices;
pub(crate) mod enrolment;
pub(crate) mod enrolment_keys;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod releases;
pub(crate) mod repo;
pub(crate) mod rollouts;
pub(crate) mod tokens;
pub(crate) mod traffic_report;

/// Longest JSON body, in bytes.
const BODY_MAX: usize = 1 << 20;

/// How long a request may take until its answer begins; uploads have a timeout of their own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything the hub answers.
pub(crate) fn router(app: App) -> Router {
    let api = Router::new()
        .route("/enrolment", post(enrolment::request::handle))
        .route(
            "/devices",
            get(devices::list::handle).post(devices::create::handle),
        )
        .route(
            "/devices/{id}",
            get(devices::show::handle).delete(devices::remove::handle),
        )
        .route("/devices/{id}/accept", post(devices::accept::handle))
        .route("/devices/{id}/config", get(devices::config::handle))
        .route("/devices/{id}/group", put(devices::group::handle))
        .route(
            "/config",
            get(config::show::handle)
                .patch(config::change::merge)
                .put(config::change::replace),
        )
        .route("/config/history", get(config::history::handle))
        .route("/config/rollback", post(config::rollback::handle))
        .route("/releases", get(releases::handle))
        .route("/releases/in-use", get(releases::in_use::handle))
        .route("/artifacts", get(artifacts::list::handle))
        .route(
            "/artifacts/{name}/{version}/{filename}",
            post(artifacts::upload::handle).layer(DefaultBodyLimit::disable()),
        )
        .route(
            "/rollouts",
            get(rollouts::list::handle).post(rollouts::start::handle),
        )
        .route("/rollouts/{id}", get(rollouts::show::handle))
        .route("/rollouts/{id}/pause", post(rollouts::command::pause))
        .route("/rollouts/{id}/resume", post(rollouts::command::resume))
        .route("/rollouts/{id}/abort", post(rollouts::command::abort))
        .route(
            "/tokens",
            get(tokens::list::handle).post(tokens::create::handle),
        )
        .route("/tokens/{id}", delete(tokens::revoke::handle))
        .route(
            "/enrolment-keys",
            get(enrolment_keys::list::handle).post(enrolment_keys::create::handle),
        )
        .route(
            "/enrolment-keys/{id}",
            delete(enrolment_keys::revoke::handle),
        )
        .route("/events", get(events::handle))
        .route("/traffic", get(traffic_report::handle))
        .route("/audit", get(audit::handle))
        .fallback(unknown_call)
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .nest("/api/v1", api)
        .route("/api/{*rest}", get(unknown_call).fallback(unknown_call))
        .nest("/{tenant}/controller/v1/{id}", ddi::router())
        .route(
            "/repo/{*path}",
            put(repo::put::handle).get(repo::get::handle),
        )
        .route("/healthz", get(health::handle))
        .route("/metrics", get(metrics::handle))
        .route("/openapi.json", get(openapi::handle))
        .merge(pages::router())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(app.clone(), traffic::count))
        .with_state(app)
}

/// Ends requests whose body never comes.
async fn in_time(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let uploads = path.starts_with("/api/v1/artifacts/") || path.starts_with("/repo/");
    if uploads && request.method() != Method::GET {
        return next.run(request).await;
    }
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the request took too long",
        )
        .into_response(),
    }
}

async fn unknown_call() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "unknown-call",
        "there is no such call",
    )
    .help("/openapi.json lists them")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong-method",
        "not with this method",
    )
    .help("/openapi.json lists the calls")
}
