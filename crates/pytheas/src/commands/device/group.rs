//! `pytheas device group`: devices that get the same settings.

use pytheas_api::{DeviceGroup, DeviceId, DeviceView, Group};

use super::list::Devices;
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
};

/// Put devices into a group, whose settings they get, or out of any
///
/// A device is in one group at most; a group comes into being with its first
/// device or setting (`pytheas config set --group NAME …`).
#[derive(Debug, clap::Args)]
pub(crate) struct GroupArgs {
    /// Their ids
    #[arg(required = true)]
    ids: Vec<DeviceId>,
    /// The group
    #[arg(long = "to", value_name = "GROUP", required_unless_present = "none")]
    to: Option<Group>,
    /// Out of any
    #[arg(long, conflicts_with = "to")]
    none: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Puts them there.
pub(super) fn run(args: &GroupArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    let wanted = DeviceGroup {
        group: args.to.clone(),
    };
    let moved = args
        .ids
        .iter()
        .map(|id| hub.put(&format!("devices/{}/group", encoded(id.as_str())), &wanted))
        .collect::<Result<Vec<DeviceView>, _>>()?;
    context.show(&Devices(moved))
}
