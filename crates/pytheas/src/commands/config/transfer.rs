//! `pytheas config export|import`: settings as a file, to keep in git or to move to another hub.

use std::{collections::BTreeMap, io, path::PathBuf};

use pytheas_api::{ConfigChange, ConfigLayer, ConfigView};
use serde::Serialize;
use serde_json::Value;

use super::{change, json, layer::LayerArgs, show::of_layer};
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show},
};

/// Print settings as JSON: every layer by its name, or those of one
///
/// `pytheas config import` takes what this prints.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Only the settings of all devices
    #[arg(long, conflicts_with_all = ["group", "device"])]
    all: bool,
    #[command(flatten)]
    layer: LayerArgs,
    #[command(flatten)]
    hub: HubArgs,
}

/// Replace settings by those of a file: the layers it names, or one
///
/// All of the file or nothing; layers it does not name stay as they are. Here
/// `null` is kept: it hides what a layer below says.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// What `pytheas config export` printed; `-` reads standard input
    file: PathBuf,
    /// The file holds the settings of all devices
    #[arg(long, conflicts_with_all = ["group", "device"])]
    all: bool,
    #[command(flatten)]
    change: change::ChangeArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Json(Value);

impl Show for Json {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line(serde_json::to_string_pretty(&self.0).unwrap_or_default())
    }
}

fn one(all: bool, layer: &LayerArgs) -> Option<ConfigLayer> {
    layer.named().or(all.then_some(ConfigLayer::All))
}

/// Prints them.
pub(super) fn export(args: &ExportArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    let value = match one(args.all, &args.layer) {
        Some(layer) => Value::Object(of_layer(&hub, &layer)?),
        None => {
            let view: ConfigView = hub.get("config")?;
            let layers = view.layers.into_iter();
            Value::Object(
                layers
                    .map(|(layer, settings)| (layer.to_string(), Value::Object(settings)))
                    .collect(),
            )
        }
    };
    context.show(&Json(value))
}

/// Replaces them.
pub(super) fn import(args: &ImportArgs, context: &Context) -> miette::Result<()> {
    let layers = match one(args.all, &args.change.layer) {
        Some(layer) => BTreeMap::from([(layer, json::object(&args.file)?)]),
        None => json::layers(&args.file)?,
    };
    let change = ConfigChange {
        layers,
        note: args.change.note.clone(),
    };
    let hub = HubClient::new(&args.change.hub)?;
    change::show(hub.put("config", &change)?, context)
}
