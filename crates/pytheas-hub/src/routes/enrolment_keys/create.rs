//! `POST /api/v1/enrolment-keys`.

use axum::{Json, extract::State, http::StatusCode};
use pytheas_api::{EnrolmentKey, EnrolmentKeyRequest, ErrorBody};

use crate::{
    app::App,
    auth::Admin,
    reply::{ApiError, ApiResult, Body, printable},
    secret,
    store::{audit, enrolment_keys},
};

/// Make an enrolment key; the only time it is told
#[utoipa::path(post, path = "/api/v1/enrolment-keys", tag = "enrolment",
    request_body = EnrolmentKeyRequest,
    responses((status = 201, body = EnrolmentKey), (status = 403, body = ErrorBody)),
    security(("token" = [])))]
pub(crate) async fn handle(
    State(app): State<App>,
    Admin(person): Admin,
    Body(request): Body<EnrolmentKeyRequest>,
) -> ApiResult<(StatusCode, Json<EnrolmentKey>)> {
    if request.uses == Some(0) || request.valid_s == Some(0) {
        return Err(ApiError::invalid(
            "a key of no uses or no time accepts nobody",
        ));
    }
    let name = printable("key", &request.name)?;
    let key = secret::new("enr_").map_err(|error| ApiError::internal(&error))?;
    let now_ms = app.now_ms();
    let expires_ms = request
        .valid_s
        .map(|seconds| now_ms + i64::from(seconds) * 1000);
    let hash = secret::hash(&key);
    let mut tx = app.store.begin().await?;
    let info = enrolment_keys::add(&mut tx, name, hash, request.uses, expires_ms, now_ms).await?;
    let subject = info.id.to_string();
    audit::note(
        &mut tx,
        now_ms,
        &person.name,
        "enrolment-key.create",
        &subject,
        &info.name,
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(EnrolmentKey { key, info })))
}
