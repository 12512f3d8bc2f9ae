//! `GET /api/v1/enrolment-keys`.

use axum::{Json, extract::State};
use pytheas_api::EnrolmentKeyView;

use crate::{app::App, auth::Admin, reply::ApiResult, store::enrolment_keys};

/// List the enrolment keys, without their secrets
#[utoipa::path(get, path = "/api/v1/enrolment-keys", tag = "enrolment",
    responses((status = 200, body = Vec<EnrolmentKeyView>)), security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    _admin: Admin,
) -> ApiResult<Json<Vec<EnrolmentKeyView>>> {
    Ok(Json(enrolment_keys::list(&app.store.read).await?))
}
