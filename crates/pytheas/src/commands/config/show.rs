//! `pytheas config show|get`: what settings there are, and what became of them.

use std::io;

use miette::Diagnostic;
use pytheas_api::{ConfigLayer, ConfigView, DeviceConfig, DeviceId, Settings};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{json, layer::LayerArgs};
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, HubError, encoded},
    output::{Paint, Show},
};

/// Show settings; those of a device merged, with what the device says of them
///
/// A device gets the settings of all devices, over them those of its group, over
/// them its own. Without `--group` and `--device`, every layer is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    layer: LayerArgs,
    #[command(flatten)]
    hub: HubArgs,
}

/// Print one setting; exit code 1 when there is none
///
/// A text is printed as it is, everything else (and with `--json` all) as JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Its key, e.g. `mqtt.host`
    key: String,
    #[command(flatten)]
    layer: LayerArgs,
    #[command(flatten)]
    hub: HubArgs,
}

/// There is no such setting.
#[derive(Debug, Error, Diagnostic)]
#[error("no setting `{key}` in `{layer}`")]
#[diagnostic(
    code(pytheas::config::no_setting),
    help("`pytheas config show` shows those there are")
)]
pub(super) struct NoSetting {
    pub(super) key: String,
    pub(super) layer: ConfigLayer,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Layers(ConfigView);

impl Show for Layers {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        if self.0.layers.is_empty() {
            return out.line("no settings yet: `pytheas config set KEY=VALUE` makes the first");
        }
        out.fact("revision", self.0.revision)?;
        for (layer, settings) in &self.0.layers {
            out.line("")?;
            out.line(layer)?;
            members(out, settings)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct OfDevice(DeviceConfig);

impl Show for OfDevice {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let config = &self.0;
        let layers: Vec<String> = config.layers.iter().map(ToString::to_string).collect();
        out.fact("revision", format!("{} ({})", config.revision, config.tag))?;
        let state = out.state(config.state.as_str());
        out.fact("state", state)?;
        out.fact("runs with", config.applied.as_deref().unwrap_or("-"))?;
        out.fact(
            "from",
            match layers.is_empty() {
                true => "-".to_owned(),
                false => layers.join(", "),
            },
        )?;
        for line in &config.because {
            out.fact("because", line)?;
        }
        for (board, has) in &config.boards {
            let mut text = format!("{board} has {}", has.applied.as_deref().unwrap_or("none"));
            if let Some(because) = &has.because {
                text.push_str(&format!("; not {because}"));
            }
            out.fact("board", text)?;
        }
        out.line("")?;
        members(out, &config.settings)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct OfLayer(Settings);

impl Show for OfLayer {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        members(out, &self.0)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct One(Value);

impl Show for One {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        match &self.0 {
            Value::String(text) => out.line(text),
            other => out.line(other),
        }
    }
}

/// Each setting on a line, `mqtt.port = 1883`.
fn members(out: &mut Paint<'_>, settings: &Settings) -> io::Result<()> {
    fn below(out: &mut Paint<'_>, path: &str, settings: &Settings) -> io::Result<()> {
        for (key, value) in settings {
            // A key with a dot in it cannot be told from two steps otherwise.
            let key = match key.contains('.') || key.is_empty() {
                true => format!("{key:?}"),
                false => key.clone(),
            };
            let path = match path {
                "" => key,
                path => format!("{path}.{key}"),
            };
            match value {
                Value::Object(inner) if !inner.is_empty() => below(out, &path, inner)?,
                other => out.line(format!("{path} = {other}"))?,
            }
        }
        Ok(())
    }
    below(out, "", settings)
}

/// What a device is to run with.
fn of_device(hub: &HubClient, id: &DeviceId) -> Result<DeviceConfig, HubError> {
    hub.get(&format!("devices/{}/config", encoded(id.as_str())))
}

/// The settings of one layer.
pub(super) fn of_layer(hub: &HubClient, layer: &ConfigLayer) -> Result<Settings, HubError> {
    let mut view: ConfigView = hub.get("config")?;
    Ok(view.layers.remove(layer).unwrap_or_default())
}

/// Shows them.
pub(super) fn run(args: &ShowArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    match (&args.layer.device, args.layer.named()) {
        (Some(id), _) => context.show(&OfDevice(of_device(&hub, id)?)),
        (None, Some(layer)) => context.show(&OfLayer(of_layer(&hub, &layer)?)),
        (None, None) => context.show(&Layers(hub.get("config")?)),
    }
}

/// Prints one.
pub(super) fn get(args: &GetArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    let layer = args.layer.layer();
    let settings = match &args.layer.device {
        Some(id) => of_device(&hub, id)?.settings,
        None => of_layer(&hub, &layer)?,
    };
    let key = args.key.clone();
    match json::find(&settings, &key)? {
        Some(value) => context.show(&One(value.clone())),
        None => Err(NoSetting { key, layer }.into()),
    }
}
