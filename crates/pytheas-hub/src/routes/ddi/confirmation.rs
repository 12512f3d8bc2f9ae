//! `…/confirmationBase…`: somebody at the device agrees before anything is fetched.

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use pytheas_api::{
    ActionStatus,
    ddi::{
        ActivateAutoConfirm, AutoConfirm, ConfirmationBase, ConfirmationFeedback,
        ConfirmationLinks, ConfirmationRoot, Link,
    },
};

use super::{action_id, answer, broken, deployment, failed, named, parse};
use crate::{
    app::App,
    auth::Device,
    reply::{ApiError, is_printable},
    store::{actions, devices},
};

/// Whether the device agrees by itself, and what waits.
pub(crate) async fn root(
    State(app): State<App>,
    device: Device,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let auto_confirm = devices::auto_confirm(&app.store.read, &device.id).await?;
    let below = |name: &str| Some(Link::to(format!("{}/confirmationBase/{name}", device.root)));
    let mut links = ConfirmationLinks::default();
    match auto_confirm.active {
        true => links.deactivate_auto_confirm = below("deactivateAutoConfirm"),
        false => links.activate_auto_confirm = below("activateAutoConfirm"),
    }
    let open = actions::open(&app.store.read, &device.id).await?;
    if let Some(action) = open.first()
        && action.status == ActionStatus::Unconfirmed
    {
        links.confirmation_base = below(&format!("{}?c={}", action.id, action.module));
    }
    let root = ConfirmationRoot {
        auto_confirm,
        links,
    };
    Ok(answer(&headers, &root))
}

/// What would be installed; unknown unless it waits.
pub(crate) async fn base(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    Query(query): Query<deployment::HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let waits = |status| status == ActionStatus::Unconfirmed;
    let action = named(&app, &device, &action, waits).await?;
    let base = deployment::base(&app, &device.root, &action, &query).await;
    let base = base.map_err(broken)?;
    let base = ConfirmationBase {
        id: base.id,
        confirmation: base.deployment,
        action_history: base.action_history,
    };
    Ok(answer(&headers, &base))
}

/// What somebody at the device says.
pub(crate) async fn feedback(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<Response, Response> {
    let id = action_id(&action)?;
    let said: ConfirmationFeedback = parse(&body)?;
    app.engine.confirm(&device.id, id, &said).await?;
    Ok(StatusCode::OK.into_response())
}

/// The device agrees by itself from now on, also to what waits.
pub(crate) async fn activate(
    State(app): State<App>,
    device: Device,
    body: Bytes,
) -> Result<Response, ApiError> {
    let said: ActivateAutoConfirm = match body.is_empty() {
        true => ActivateAutoConfirm::default(),
        false => match parse(&body) {
            Ok(said) => said,
            Err(response) => return Ok(response),
        },
    };
    if [&said.initiator, &said.remark]
        .into_iter()
        .flatten()
        .any(|text| !is_printable(text))
    {
        let message = "`initiator` and `remark`: at most 128 printable characters";
        return Ok(failed(
            StatusCode::BAD_REQUEST,
            "pytheas.malformed",
            message,
        ));
    }
    if devices::auto_confirm(&app.store.read, &device.id)
        .await?
        .active
    {
        let message = "the device agrees by itself already";
        return Ok(failed(StatusCode::CONFLICT, "pytheas.active", message));
    }
    let auto = AutoConfirm {
        active: true,
        initiator: said.initiator,
        remark: said.remark,
        activated_at: None,
    };
    app.engine.auto_confirm(&device.id, auto).await?;
    Ok(StatusCode::OK.into_response())
}

/// No longer.
pub(crate) async fn deactivate(
    State(app): State<App>,
    device: Device,
) -> Result<Response, ApiError> {
    let auto = AutoConfirm::default();
    app.engine.auto_confirm(&device.id, auto).await?;
    Ok(StatusCode::OK.into_response())
}
