//! `pytheas device show`: one device, with what it was told and what it answered.

use std::io;

use pytheas_api::DeviceDetail;
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
    output::{Paint, Show, ago, now_ms},
};

/// Show one device and the history of its updates
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Its id
    id: String,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Detail(DeviceDetail);

impl Show for Detail {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let now = now_ms();
        let DeviceDetail {
            device,
            attributes,
            history,
        } = &self.0;
        out.fact("device", &device.id)?;
        out.fact("name", &device.name)?;
        if let Some(group) = &device.group {
            out.fact("group", group)?;
        }
        let state = out.state(device.state.as_str());
        out.fact("state", state)?;
        out.fact("runs", device.release.as_deref().unwrap_or("-"))?;
        if !device.also.is_empty() {
            out.fact("also", device.also.join(", "))?;
        }
        let update = out.state(device.update.as_str());
        out.fact("update", update)?;
        out.fact("platform", device.platform.as_deref().unwrap_or("-"))?;
        out.fact(
            "last seen",
            device
                .last_seen_ms
                .map_or("never".into(), |then| ago(then, now)),
        )?;
        for (key, value) in attributes {
            out.fact("attribute", format!("{key} = {value}"))?;
        }
        for action in history {
            let status = out.state(action.status.as_str());
            out.line("")?;
            out.line(format!(
                "{} {status} {} (action {}, rollout {})",
                action.release,
                ago(action.updated_ms, now),
                action.id,
                action.rollout
            ))?;
            for message in &action.messages {
                for (i, text) in message.details.iter().enumerate() {
                    let head = if i == 0 { message.status.as_str() } else { "" };
                    out.line(format!("  {head:<12} {text}"))?;
                }
            }
        }
        Ok(())
    }
}

/// Shows it.
pub(super) fn run(args: &ShowArgs, context: &Context) -> miette::Result<()> {
    let path = format!("devices/{}", encoded(&args.id));
    context.show(&Detail(HubClient::new(&args.hub)?.get(&path)?))
}
