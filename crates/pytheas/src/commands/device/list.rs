//! `pytheas device list`: who is there, what it runs, when it was last seen.

use std::io;

use pytheas_api::DeviceView;
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, ago, now_ms},
};

/// List the devices the hub knows
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this group
    #[arg(long, value_name = "NAME")]
    group: Option<pytheas_api::Group>,
    #[command(flatten)]
    hub: HubArgs,
}

/// Devices, as a table.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Devices(pub(super) Vec<DeviceView>);

impl Show for Devices {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let now = now_ms();
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|device| {
                [
                    device.id.to_string(),
                    device.name.clone(),
                    device.state.as_str().to_owned(),
                    device.release.clone().unwrap_or_else(|| "-".into()),
                    device.update.as_str().to_owned(),
                    device
                        .last_seen_ms
                        .map_or("never".into(), |then| ago(then, now)),
                    device.platform.clone().unwrap_or_else(|| "-".into()),
                ]
            })
            .collect();
        out.table(
            ["ID", "NAME", "STATE", "RUNS", "UPDATE", "SEEN", "PLATFORM"],
            &rows,
        )
    }
}

/// Lists them.
pub(super) fn run(args: &ListArgs, context: &Context) -> miette::Result<()> {
    let mut devices = HubClient::new(&args.hub)?.devices(None)?;
    if args.group.is_some() {
        devices.retain(|device| device.group == args.group);
    }
    context.show(&Devices(devices))
}
