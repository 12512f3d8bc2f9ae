//! `/`: what went wrong, the rollouts, the devices.

use axum::{extract::State, http::HeaderMap, response::Response};
use maud::{Markup, html};
use pytheas_api::{ActionView, DeviceId, DeviceState, DeviceView, Role, RolloutState, RolloutView};

use super::{layout, parts};
use crate::{
    app::App,
    auth::{Session, covers},
    reply::ApiResult,
    routes::devices,
    store::{self, actions, rollouts},
};

/// Devices, rollouts and failures shown; more are found through the API.
const DEVICES_MAX: u32 = 500;
const PENDING_MAX: u32 = 50;
const ROLLOUTS_MAX: u32 = 10;
const FAILURES_MAX: u32 = 8;

/// The dashboard.
pub(crate) async fn handle(
    State(app): State<App>,
    session: Session,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let now_ms = app.now_ms();
    // Those that need somebody stand first, however many others there are.
    let mut devices = store::devices::pending(&app.store.read, PENDING_MAX).await?;
    let others = devices::views(&app, "", DEVICES_MAX).await?;
    devices.extend(
        others
            .into_iter()
            .filter(|device| device.state != DeviceState::Pending),
    );
    let (total, pending) = store::devices::counts(&app.store.read).await?;
    let rollouts = rollouts::list(&app.store.read, i64::MAX, ROLLOUTS_MAX).await?;
    let failures = actions::failures(&app.store.read, FAILURES_MAX).await?;
    let content = html! {
        h1.hidden { "Overview" }
        (figures(total, pending, app.presence.online(now_ms), &rollouts))
        (trouble(&rollouts, &failures, now_ms))
        h2 { "Rollouts" }
        @if covers(session.token.role, Role::Operator) {
            p { a href="/rollouts/new" { "Start a rollout" } }
        }
        @for rollout in &rollouts { (parts::rollout_card(rollout, &session, now_ms)) }
        @if rollouts.is_empty() {
            p.card.soft { "None yet. " code { "pytheas rollout start" } " starts one, too." }
        }
        h2 { "Devices" }
        (table(&devices, &session, now_ms))
        @if total > devices.len() as i64 {
            p.soft { (devices.len()) " of " (total) " devices." }
        }
    };
    Ok(layout::page(&headers, &session, "Overview", content))
}

fn figures(total: i64, pending: i64, online: usize, rollouts: &[RolloutView]) -> Markup {
    let running = rollouts
        .iter()
        .filter(|rollout| rollout.state == RolloutState::Running)
        .count();
    html! {
        ul.figures {
            li { b { (total) } @if total == 1 { "device" } @else { "devices" } }
            li { b { (online) } "online" }
            @if pending > 0 { li { b { (pending) } "waiting to be accepted" } }
            li { b { (running) } @if running == 1 { "rollout running" } @else { "rollouts running" } }
        }
    }
}

fn trouble(rollouts: &[RolloutView], failures: &[(DeviceId, ActionView)], now_ms: i64) -> Markup {
    let paused: Vec<_> = rollouts
        .iter()
        .filter(|rollout| rollout.state == RolloutState::Paused)
        .filter_map(|rollout| Some((rollout, rollout.reason.as_ref()?)))
        .collect();
    if paused.is_empty() && failures.is_empty() {
        return html! {};
    }
    html! {
        h2 { "What went wrong" }
        section.card.trouble aria-label="What went wrong" {
            ul {
                @for (rollout, reason) in paused {
                    li {
                        "Rollout of " a href=(format!("/rollouts/{}", rollout.id)) { (rollout.release) }
                        " is paused"
                        // Its failures stand right below.
                        @if !failures.iter().any(|(_, action)| action.rollout == rollout.id) {
                            ": " (parts::prose(reason))
                        }
                    }
                }
                @for (device, action) in failures {
                    li {
                        a href=(format!("/devices/{device}")) { (device) } " did not take "
                        (action.release) ": "
                        (parts::prose(action.message.as_deref().unwrap_or("no reason given"))) " "
                        span.soft { (parts::ago(action.updated_ms, now_ms)) }
                    }
                }
            }
        }
    }
}

fn table(devices: &[DeviceView], session: &Session, now_ms: i64) -> Markup {
    if devices.is_empty() {
        return html! {
            p.card.soft { "None yet. A device enrols itself with " code { "pytheas agent enrol --hub …" } "." }
        };
    }
    let may_accept = covers(session.token.role, Role::Operator);
    html! {
        table {
            caption.hidden { "Devices" }
            thead { tr {
                th scope="col" { "Device" }
                th scope="col" { "Release" }
                th scope="col" { "State" }
                th scope="col" { "Update" }
                th scope="col" { "Last seen" }
            } }
            tbody {
                @for device in devices {
                    tr {
                        th scope="row" {
                            a href=(format!("/devices/{}", device.id)) { (device.name) }
                            @if device.name != device.id.as_str() { " " span.soft { (device.id) } }
                        }
                        td data-label="Release" { (device.release.as_deref().unwrap_or("–")) }
                        td data-label="State" {
                            span {
                                (parts::device_state(device.state)) " "
                                @if device.state == DeviceState::Pending && may_accept {
                                    (parts::button(&format!("/devices/{}/accept", device.id), "Accept", "main", None, session))
                                }
                            }
                        }
                        td data-label="Update" { span {
                            @match &device.action {
                                Some(action) if !action.status.is_closed() => {
                                    (parts::action_status(action.status)) " "
                                    span.soft { (action.release) }
                                }
                                _ => (parts::update_state(device.update)),
                            }
                        } }
                        td data-label="Last seen" { (parts::maybe_ago(device.last_seen_ms, now_ms)) }
                    }
                }
            }
        }
    }
}
