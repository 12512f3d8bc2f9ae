//! `pytheas device accept`: admit a device that asked.

use pytheas_api::{DeviceState, DeviceView};

use super::list::Devices;
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
};

/// Admit devices that asked to join
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// Their ids
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
    /// All that are pending
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Admits them.
pub(super) fn run(args: &AcceptArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    let mut ids = args.ids.clone();
    if args.all {
        let pending = hub.devices(Some(DeviceState::Pending))?;
        ids = pending.iter().map(|device| device.id.to_string()).collect();
    }
    let accepted = ids
        .iter()
        .map(|id| hub.post(&format!("devices/{}/accept", encoded(id)), &()))
        .collect::<Result<Vec<DeviceView>, _>>()?;
    if accepted.is_empty() {
        context.note("no device is pending");
    }
    context.show(&Devices(accepted))
}
