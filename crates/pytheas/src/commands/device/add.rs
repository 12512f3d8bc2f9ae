//! `pytheas device add`: a device that speaks DDI but does not enrol (SWUpdate, RAUC, Zephyr).

use std::io;

use pytheas_api::{DeviceRequest, DeviceToken};
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show},
};

/// Make a device that does not enrol by itself and print its token
///
/// For SWUpdate, rauc-hawkbit-updater, Zephyr and other DDI clients: put the
/// token into their configuration. It is shown this once.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Its id (DDI: controllerId)
    id: pytheas_api::DeviceId,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Its platform, when it runs Pytheas releases
    #[arg(long)]
    platform: Option<pytheas_release::Platform>,
    /// The group whose settings it gets
    #[arg(long)]
    group: Option<pytheas_api::Group>,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Added(DeviceToken);

impl Show for Added {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("device", &self.0.device.id)?;
        out.fact("token", &self.0.token)?;
        out.fact("tenant", &self.0.tenant)
    }
}

/// Makes it.
pub(super) fn run(args: &AddArgs, context: &Context) -> miette::Result<()> {
    let request = DeviceRequest {
        device_id: args.id.clone(),
        name: args.name.clone(),
        group: args.group.clone(),
        platform: args.platform.as_ref().map(ToString::to_string),
    };
    context.show(&Added(
        HubClient::new(&args.hub)?.post("devices", &request)?,
    ))
}
