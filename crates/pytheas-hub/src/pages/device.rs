//! `/devices/{id}`: one device: what it says of itself, and what happened to it.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use maud::{Markup, html};
use pytheas_api::{ActionMessage, ActionView, DeviceState, DeviceView, Role};

use super::{device_config, layout, parts};
use crate::{
    app::App,
    auth::{Session, covers},
    reply::ApiResult,
    routes::devices,
};

/// The device's page.
pub(crate) async fn handle(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let now_ms = app.now_ms();
    let detail = devices::show::detail(&app, &devices::id(&id)?).await?;
    let config = devices::config::view(&app, &detail.device.id).await?;
    let traffic = app.traffic.report(Some(&detail.device.id), now_ms);
    let moved: u64 = traffic
        .devices
        .iter()
        .map(|device| device.total().total_bytes())
        .sum();
    let content = html! {
        h1 { (detail.device.name) }
        (facts(&detail.device, moved, &session, now_ms))
        (device_config::section(&config))
        h2 { "What happened" }
        @if detail.history.is_empty() { p.card.soft { "Nothing was ever assigned to it." } }
        @for action in &detail.history { (history(action, now_ms)) }
        @if !detail.attributes.is_empty() {
            h2 { "What it says of itself" }
            table {
                caption.hidden { "Attributes" }
                tbody {
                    @for (key, value) in &detail.attributes {
                        tr { th scope="row" { (key) } td { (value) } }
                    }
                }
            }
        }
    };
    Ok(layout::page(
        &headers,
        &session,
        &detail.device.name,
        content,
    ))
}

fn facts(device: &DeviceView, moved: u64, session: &Session, now_ms: i64) -> Markup {
    let may_accept = covers(session.token.role, Role::Operator);
    html! {
        section.card aria-label="Facts" {
            dl {
                dt { "Id" } dd { (device.id) }
                dt { "State" } dd {
                    (parts::device_state(device.state)) " "
                    @if device.state == DeviceState::Pending && may_accept {
                        (parts::button(&format!("/devices/{}/accept", device.id), "Accept", "main", None, session))
                    }
                }
                @if let Some(group) = &device.group { dt { "Group" } dd { (group) } }
                dt { "Release" } dd { (device.release.as_deref().unwrap_or("–")) }
                @if !device.also.is_empty() { dt { "Also" } dd { (device.also.join(", ")) } }
                @if let Some(platform) = &device.platform { dt { "Platform" } dd { (platform) } }
                dt { "Last seen" } dd {
                    (parts::maybe_ago(device.last_seen_ms, now_ms))
                    @if let Some(address) = &device.last_address { span.soft { " from " (address) } }
                }
                dt { "Moved" } dd { (bytes(moved)) }
            }
        }
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

fn history(action: &ActionView, now_ms: i64) -> Markup {
    html! {
        article.card {
            div.row {
                h3 { (action.release) }
                span {
                    (parts::action_status(action.status)) " "
                    span.soft {
                        a href=(format!("/rollouts/{}", action.rollout)) { "rollout " (action.rollout) }
                        ", " (parts::ago(action.created_ms, now_ms))
                    }
                }
            }
            @if !action.messages.is_empty() {
                ol.said { @for message in &action.messages { (said(message, now_ms)) } }
            }
        }
    }
}

/// One report: the first line as text, the rest (a log's tail) as it is.
fn said(message: &ActionMessage, now_ms: i64) -> Markup {
    let (first, rest) = match message.details.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => ("", &[][..]),
    };
    html! {
        li {
            span { (parts::action_status(message.status)) }
            div {
                (parts::prose(first)) " " span.soft { (parts::ago(message.at_ms, now_ms)) }
                @if !rest.is_empty() { pre tabindex="0" { (rest.join("\n")) } }
            }
        }
    }
}
