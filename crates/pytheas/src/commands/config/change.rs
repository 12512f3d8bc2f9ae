//! `pytheas config set|unset|rollback`: each change is a revision.

use std::{collections::BTreeMap, io, path::Path};

use pytheas_api::{ConfigChange, ConfigLayer, ConfigRevision, ConfigRollback, Settings};
use serde::Serialize;
use serde_json::Value;

use super::{
    json,
    layer::LayerArgs,
    show::{NoSetting, of_layer},
};
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show},
};

/// Set settings of all devices, a group or one device
///
/// Devices fetch them at their next poll. A value is JSON if it is some, else a
/// text; dots in a key lead into objects.
///
/// Examples: `pytheas config set interval=30 mqtt.host=broker.local`,
/// `pytheas config set --device gw-1 interval=5`,
/// `echo '{"interval": 30}' | pytheas config set -`
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// What to set; `-` alone reads a JSON object from standard input, which is merged (RFC 7396)
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Take every value as a text
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What every change takes.
#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    pub(super) layer: LayerArgs,
    /// Why, for the history
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    pub(super) note: String,
    #[command(flatten)]
    pub(super) hub: HubArgs,
}

/// Remove settings; what lies below in other layers counts again
#[derive(Debug, clap::Args)]
pub(crate) struct UnsetArgs {
    /// Their keys, e.g. `mqtt.host`
    #[arg(required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Bring settings back to what they were at a revision, as a new revision
///
/// Without `--group` and `--device` those that the revision changed.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The revision, see `pytheas config history`
    revision: i64,
    /// The settings of all devices
    #[arg(long, conflicts_with_all = ["group", "device"])]
    all: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What a change made, as a line each.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Made(pub(super) Vec<ConfigRevision>);

impl Show for Made {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for made in &self.0 {
            out.line(format!("revision {}: {}", made.revision, made.layer))?;
        }
        Ok(())
    }
}

/// Shows what a change made.
pub(super) fn show(made: Vec<ConfigRevision>, context: &Context) -> miette::Result<()> {
    if made.is_empty() {
        context.note("nothing to change: that is how it is");
    }
    context.show(&Made(made))
}

fn merge(args: &ChangeArgs, patch: Settings, context: &Context) -> miette::Result<()> {
    let change = ConfigChange {
        layers: BTreeMap::from([(args.layer.layer(), patch)]),
        note: args.note.clone(),
    };
    show(
        HubClient::new(&args.hub)?.patch("config", &change)?,
        context,
    )
}

/// Sets them.
pub(super) fn set(args: &SetArgs, context: &Context) -> miette::Result<()> {
    let patch = match args.settings.as_slice() {
        [only] if only == "-" => json::object(Path::new("-"))?,
        words => json::patch(words, args.text)?,
    };
    merge(&args.change, patch, context)
}

/// Removes them.
pub(super) fn unset(args: &UnsetArgs, context: &Context) -> miette::Result<()> {
    let layer = args.change.layer.layer();
    let there = of_layer(&HubClient::new(&args.change.hub)?, &layer)?;
    let mut patch = Settings::new();
    for key in &args.keys {
        if json::find(&there, key)?.is_none() {
            let key = key.clone();
            return Err(NoSetting { key, layer }.into());
        }
        json::put(&mut patch, key, Value::Null)?;
    }
    merge(&args.change, patch, context)
}

/// Brings them back.
pub(super) fn rollback(args: &RollbackArgs, context: &Context) -> miette::Result<()> {
    let wanted = ConfigRollback {
        revision: args.revision,
        layer: args
            .change
            .layer
            .named()
            .or(args.all.then_some(ConfigLayer::All)),
        note: args.change.note.clone(),
    };
    let made: ConfigRevision =
        HubClient::new(&args.change.hub)?.post("config/rollback", &wanted)?;
    show(vec![made], context)
}
