//! `/rollouts/{id}`: one rollout with its devices.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use maud::html;

use super::{layout, parts};
use crate::{app::App, auth::Session, reply::ApiResult, routes::rollouts};

/// Devices shown; more are found through the API.
const DEVICES_MAX: usize = 500;

/// The rollout's page.
pub(crate) async fn handle(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let now_ms = app.now_ms();
    let detail = rollouts::detail(&app, rollouts::id(&id)?).await?;
    let rollout = &detail.rollout;
    let content = html! {
        h1 { "Rollout " (rollout.id) }
        (parts::rollout_card(rollout, &session, now_ms))
        p.soft {
            "The next group opens when " (rollout.success_threshold) "% of a group succeeded; it pauses when more than "
            (rollout.error_threshold) "% failed; a device that reports nothing for "
            (parts::span(rollout.silence_deadline_s)) " counts as failed."
            @if rollout.confirm { " Somebody at each device agrees before anything is fetched there." }
        }
        h2 { "Devices" }
        table {
            caption.hidden { "Devices of the rollout" }
            thead { tr {
                th scope="col" { "Device" }
                th scope="col" { "Group" }
                th scope="col" { "Status" }
                th scope="col" { "Message" }
            } }
            tbody {
                @for device in detail.devices.iter().take(DEVICES_MAX) {
                    tr {
                        th scope="row" { a href=(format!("/devices/{}", device.device)) { (device.device) } }
                        td data-label="Group" { (device.group + 1) }
                        td data-label="Status" { (parts::action_status(device.status)) }
                        td data-label="Message" { (parts::prose(device.message.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
        @if detail.devices.len() > DEVICES_MAX {
            p.soft { "The first " (DEVICES_MAX) " of " (detail.devices.len()) " devices." }
        }
    };
    Ok(layout::page(
        &headers,
        &session,
        &format!("Rollout {}", rollout.id),
        content,
    ))
}
