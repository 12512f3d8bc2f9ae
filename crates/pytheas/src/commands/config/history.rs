//! `pytheas config history`: who changed which settings, and when.

use std::io;

use pytheas_api::{ConfigLayer, ConfigRevision};
use serde::Serialize;

use super::layer::LayerArgs;
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
    output::{Paint, Show, ago, now_ms},
};

/// List the changes of settings, newest first
///
/// With `--json` each holds the layer as it was from then on.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Only changes of the settings of all devices
    #[arg(long, conflicts_with_all = ["group", "device"])]
    all: bool,
    #[command(flatten)]
    layer: LayerArgs,
    /// At most so many
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Revisions(Vec<ConfigRevision>);

impl Show for Revisions {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let now = now_ms();
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|made| {
                let json = serde_json::Value::Object(made.settings.clone()).to_string();
                let mut settings: String = json.chars().take(60).collect();
                if settings.len() < json.len() {
                    settings.push('…');
                }
                [
                    made.revision.to_string(),
                    made.layer.to_string(),
                    made.author.clone(),
                    ago(made.at_ms, now),
                    settings,
                    made.note.clone(),
                ]
            })
            .collect();
        out.table(["REVISION", "OF", "BY", "WHEN", "SETTINGS", "NOTE"], &rows)
    }
}

/// Lists them.
pub(super) fn run(args: &HistoryArgs, context: &Context) -> miette::Result<()> {
    let mut path = format!("config/history?limit={}", args.limit);
    let layer = args.layer.named().or(args.all.then_some(ConfigLayer::All));
    if let Some(layer) = layer {
        path.push_str("&layer=");
        path.push_str(&encoded(&layer.to_string()));
    }
    context.show(&Revisions(HubClient::new(&args.hub)?.get(&path)?))
}
