//! `pytheas traffic`: bytes the hub moved.

use std::io;

use pytheas_api::TrafficReport;
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, bytes},
};

/// Show the bytes devices and people moved through the hub
#[derive(Debug, clap::Args)]
pub(crate) struct TrafficArgs {
    /// This device only
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Report(TrafficReport);

impl Show for Report {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self
            .0
            .devices
            .iter()
            .flat_map(|device| {
                device.kinds.iter().map(|(kind, sums)| {
                    [
                        device.device.to_string(),
                        kind.as_str().to_owned(),
                        sums.requests.to_string(),
                        bytes(sums.sent_bytes),
                        bytes(sums.received_bytes),
                    ]
                })
            })
            .chain(self.0.total.iter().map(|(kind, sums)| {
                [
                    "(all)".to_owned(),
                    kind.as_str().to_owned(),
                    sums.requests.to_string(),
                    bytes(sums.sent_bytes),
                    bytes(sums.received_bytes),
                ]
            }))
            .collect();
        out.table(
            ["DEVICE", "KIND", "REQUESTS", "TO DEVICE", "FROM DEVICE"],
            &rows,
        )
    }
}

/// Shows it.
pub(crate) fn run(args: &TrafficArgs, context: &Context) -> miette::Result<()> {
    let path = match &args.device {
        Some(device) => format!("traffic?device={}", crate::hub_client::encoded(device)),
        None => "traffic".to_owned(),
    };
    context.show(&Report(HubClient::new(&args.hub)?.get(&path)?))
}
