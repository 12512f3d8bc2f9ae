//! `GET /{tenant}/controller/v1/{id}`: what is there for the device to do?

use axum::{extract::State, http::HeaderMap, response::Response};
use pytheas_api::{
    ActionStatus,
    ddi::{Link, PollConfig, PollLinks, PollRoot, Polling},
};

use super::answer;
use crate::{
    app::App,
    auth::Device,
    reply::ApiError,
    store::{actions, fleet_config},
};

/// One link for the current action (the oldest open one), and what else the hub wants.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let open = actions::open(&app.store.read, &device.id).await?;
    let mut links = PollLinks::default();
    if let Some(action) = open.first() {
        let (root, id) = (&device.root, action.id);
        if action.status == ActionStatus::Cancelling {
            // No query here: SWUpdate appends `/feedback` to the address as it is.
            links.cancel_action = Some(Link::to(format!("{root}/cancelAction/{id}")));
        } else if action.status == ActionStatus::Unconfirmed {
            let c = action.module;
            links.confirmation_base = Some(Link::to(format!("{root}/confirmationBase/{id}?c={c}")));
        } else {
            // `c` changes when the content does; an action's module never changes.
            let c = action.module;
            links.deployment_base = Some(Link::to(format!("{root}/deploymentBase/{id}?c={c}")));
        }
    }
    if let Some(id) = actions::installed(&app.store.read, &device.id).await? {
        links.installed_base = Some(Link::to(format!("{}/installedBase/{id}", device.root)));
    }
    let sent = fleet_config::wanted(&app.store.read, &device.id).await?;
    // Who gets settings is asked at once whether it runs with them.
    if device.wants_config || sent.is_some() {
        links.config_data = Some(Link::to(format!("{}/configData", device.root)));
    }
    let polling = Polling::every(app.config.poll_interval);
    Ok(answer(
        &headers,
        &PollRoot {
            config: PollConfig {
                polling,
                revision: sent.as_ref().map(|config| config.tag()),
                settings: sent.map(|config| config.settings),
            },
            links,
        },
    ))
}
