//! `POST /api/v1/enrolment`: a device asks to become known; see `pytheas_api::EnrolmentRequest`.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pytheas_api::{
    DEFAULT_TENANT, EnrolmentAnswer, EnrolmentRequest, ErrorBody, EventKind, ddi::MergeMode,
};
use pytheas_release::Platform;

use crate::{
    app::{App, Shared},
    origin::Origin,
    reply::{ApiError, ApiResult, Body, is_printable},
    secret,
    store::{Tx, audit, devices, enrolment_keys},
};

/// Devices that wait to be accepted; beyond it nobody new may ask.
const PENDING_MAX: i64 = 10_000;
/// When a waiting device asks again.
const ASK_AGAIN_S: u16 = 5;

/// Ask to become known, or for the token once accepted
#[utoipa::path(post, path = "/api/v1/enrolment", tag = "enrolment",
    request_body = EnrolmentRequest,
    responses(
        (status = 200, description = "accepted", body = EnrolmentAnswer),
        (status = 202, description = "somebody has to accept it first", body = EnrolmentAnswer),
        (status = 403, description = "the enrolment key is wrong or used up", body = ErrorBody),
        (status = 409, description = "another device has this id", body = ErrorBody),
        (status = 429, description = "too many attempts", body = ErrorBody),
    ))]
pub(crate) async fn handle(
    State(app): State<App>,
    origin: Origin,
    Body(request): Body<EnrolmentRequest>,
) -> ApiResult<Response> {
    let now_ms = app.now_ms();
    if !app.enrolments.allows(origin.client, now_ms) {
        return Err(ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many",
            "too many new devices or wrong secrets from this address",
        )
        .retry_after(10));
    }
    check(&request)?;
    let tx = app.store.begin().await?;
    let certified = match origin.certified.as_deref() {
        Some(name) if name != request.device_id.as_str() => {
            app.enrolments.count(origin.client, now_ms);
            let message = format!(
                "the certificate is `{name}`'s, not `{}`'s",
                request.device_id
            );
            return Err(
                ApiError::new(StatusCode::FORBIDDEN, "other-certificate", message)
                    .help("a device's id is the common name of its certificate"),
            );
        }
        certified => certified.is_some(),
    };
    match enrol(&app, tx, &request, certified, now_ms).await {
        Ok(answer) => {
            if answer.is_new {
                app.enrolments.count(origin.client, now_ms);
            }
            Ok(reply(answer.answer))
        }
        Err(error) => {
            app.enrolments.count(origin.client, now_ms);
            Err(error)
        }
    }
}

fn check(request: &EnrolmentRequest) -> ApiResult<()> {
    request
        .platform
        .parse::<Platform>()
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    let hex = request.claim.len() == 64 && request.claim.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex {
        return Err(ApiError::invalid("`claim` is not 32 bytes in hex"));
    }
    let name = request.name.as_deref().unwrap_or_default();
    let attributes = &request.attributes;
    if !is_printable(name)
        || attributes.len() > 100
        || attributes
            .iter()
            .any(|(key, value)| key.is_empty() || !is_printable(key) || !is_printable(value))
    {
        return Err(ApiError::invalid(
            "`name` and attributes have at most 128 printable characters, a device 100 attributes",
        ));
    }
    Ok(())
}

fn reply(answer: EnrolmentAnswer) -> Response {
    let status = match answer {
        EnrolmentAnswer::Pending => StatusCode::ACCEPTED,
        EnrolmentAnswer::Accepted { .. } => StatusCode::OK,
    };
    let mut response = (status, Json(&answer)).into_response();
    if status == StatusCode::ACCEPTED {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(ASK_AGAIN_S));
    }
    response
}

struct Enrolled {
    answer: EnrolmentAnswer,
    is_new: bool,
}

async fn enrol(
    app: &Shared,
    mut tx: Tx,
    request: &EnrolmentRequest,
    certified: bool,
    now_ms: i64,
) -> ApiResult<Enrolled> {
    let id = &request.device_id;
    let actor = format!("device {id}");
    let claim = secret::hash(&request.claim.to_ascii_lowercase());
    let known = devices::credentials(&mut *tx, id).await?;
    if known
        .as_ref()
        .is_some_and(|known| known.claim_hash != Some(claim))
    {
        let message = format!("the id `{id}` belongs to another device");
        return Err(ApiError::new(StatusCode::CONFLICT, "claimed", message).help(format!(
            "is the device new, or was its state lost? Remove the old one first: `pytheas device remove {id}`"
        )));
    }
    let mut accepted = known.as_ref().is_some_and(|known| known.accepted);
    let key = match &request.enrolment_key {
        Some(key) if !accepted => {
            let taken = enrolment_keys::take(&mut tx, secret::hash(key), now_ms).await?;
            Some(taken.ok_or_else(|| {
                ApiError::new(
                    StatusCode::FORBIDDEN,
                    "wrong-enrolment-key",
                    "the enrolment key is unknown, expired or used up",
                )
            })?)
        }
        _ => None,
    };
    let mut events = Vec::new();
    if known.is_none() {
        if key.is_none() && !certified && devices::counts(&mut *tx).await?.1 >= PENDING_MAX {
            let message = "too many devices wait to be accepted";
            return Err(
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too-many", message)
                    .retry_after(600),
            );
        }
        let name = request.name.as_deref().unwrap_or(id.as_str());
        let platform = Some(request.platform.as_str());
        devices::add(&mut tx, id, name, platform, Some(claim), None, now_ms).await?;
        audit::note(&mut tx, now_ms, &actor, "device.enrol", id.as_str(), "").await?;
        events.push(EventKind::DeviceEnrolled { device: id.clone() });
    }
    if !request.attributes.is_empty() && !accepted {
        devices::merge_attributes(&mut tx, id, MergeMode::Merge, &request.attributes).await?;
    }
    let by = match key {
        Some(key) => Some(format!("by the enrolment key `{key}`")),
        None => (certified && !accepted).then(|| "by its certificate".to_owned()),
    };
    if let Some(detail) = by {
        accepted = true;
        devices::accept(&mut tx, id, now_ms).await?;
        audit::note(
            &mut tx,
            now_ms,
            &actor,
            "device.accept",
            id.as_str(),
            &detail,
        )
        .await?;
        events.push(EventKind::DeviceAccepted { device: id.clone() });
    }
    let answer = if accepted {
        let token = secret::new("").map_err(|error| ApiError::internal(&error))?;
        let hash = Some(secret::hash(&token));
        match known.as_ref().and_then(|known| known.token_hash) {
            // The token it has stays good until the new one is used: this answer may get lost.
            Some(old) => devices::set_token(&mut tx, id, Some(old), hash).await?,
            None => devices::set_token(&mut tx, id, hash, None).await?,
        }
        EnrolmentAnswer::Accepted {
            token,
            tenant: DEFAULT_TENANT.to_owned(),
        }
    } else {
        EnrolmentAnswer::Pending
    };
    tx.commit().await?;
    for event in events {
        app.bus.publish(event);
    }
    Ok(Enrolled {
        answer,
        is_new: known.is_none(),
    })
}
