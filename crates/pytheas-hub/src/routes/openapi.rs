//! `GET /openapi.json`: the REST API described for programs; a snapshot in the tests.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    artifacts, audit, config, devices, enrolment, enrolment_keys, events, health, metrics,
    releases, rollouts, tokens, traffic_report,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pytheas hub",
        description = "Devices, releases, rollouts. Failed calls answer `ErrorBody`. Devices speak hawkBit's DDI v1 at `/{tenant}/controller/v1/{id}`; the repository lies at `/repo/`."
    ),
    paths(
        artifacts::list::handle,
        artifacts::upload::handle,
        audit::handle,
        config::change::merge,
        config::change::replace,
        config::history::handle,
        config::rollback::handle,
        config::show::handle,
        devices::accept::handle,
        devices::config::handle,
        devices::create::handle,
        devices::group::handle,
        devices::list::handle,
        devices::remove::handle,
        devices::show::handle,
        enrolment::request::handle,
        enrolment_keys::create::handle,
        enrolment_keys::list::handle,
        enrolment_keys::revoke::handle,
        events::handle,
        health::handle,
        metrics::handle,
        releases::handle,
        releases::in_use::handle,
        rollouts::command::abort,
        rollouts::command::pause,
        rollouts::command::resume,
        rollouts::list::handle,
        rollouts::show::handle,
        rollouts::start::handle,
        tokens::create::handle,
        tokens::list::handle,
        tokens::revoke::handle,
        traffic_report::handle,
    ),
    modifiers(&Tokens)
)]
pub(crate) struct Document;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The document.
pub(crate) async fn handle() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
