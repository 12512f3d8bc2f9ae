//! What is typed behind the agent's commands: its arguments, parsed while they are read.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use pytheas_api::DeviceId;
use pytheas_release::{Name, Sha256, parse_duration_ms};

use crate::{
    device::DowngradePolicy,
    enrol::Enrolment,
    paths::StateDir,
    settings::{AgentSettings, NetworkArgs},
    supervisor::Confinement,
};

/// Where the agent keeps its state.
#[derive(Debug, Clone, Default, Args)]
pub struct StateArgs {
    /// State directory [default: /var/lib/pytheas, or ~/.local/state/pytheas when not root]
    #[arg(long = "state", value_name = "DIR", env = "PYTHEAS_STATE")]
    pub state: Option<PathBuf>,
}

impl StateArgs {
    /// The state directory.
    pub fn dir(&self) -> StateDir {
        StateDir::new(self.state.clone().unwrap_or_else(StateDir::default_path))
    }
}

/// How a device is enrolled.
#[derive(Debug, Clone, Default, Args)]
pub struct EnrolOptions {
    /// First root metadata of the repository (metadata/1.root.json), brought by hand
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// SHA-256 of the first root metadata, which is then fetched from the hub and compared
    #[arg(long, value_name = "HEX")]
    pub root_sha256: Option<Sha256>,
    /// Enrolment key, to be accepted at once
    #[arg(
        long,
        value_name = "KEY",
        env = "PYTHEAS_ENROLMENT_KEY",
        hide_env_values = true
    )]
    pub key: Option<String>,
    /// Token given out by hand, e.g. by another DDI server; nobody is asked to accept the device
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PYTHEAS_TARGET_TOKEN",
        hide_env_values = true,
        requires = "id"
    )]
    pub token: Option<String>,
    /// Tenant that the token belongs to [default: default]
    #[arg(long, value_name = "NAME", requires = "token", value_parser = parse_tenant)]
    pub tenant: Option<String>,
    /// Device id [default: the host's name and six random digits]
    #[arg(long, value_name = "ID")]
    pub id: Option<DeviceId>,
    /// Name of the device for people [default: its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Trust only the certification authorities in this PEM file for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Make this device known to a hub and wait until it is accepted
///
/// The root of trust is kept first; then the hub is asked until an operator (or the enrolment
/// key) accepts the device. Doing it again is harmless.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// The hub's address, e.g. `https://hub.example`
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    pub hub: String,
    /// How.
    #[command(flatten)]
    pub options: EnrolOptions,
    /// Ask once and do not wait until the device is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// How the hub is reached.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Keep the app running and up to date
///
/// Polls the hub, updates, supervises the app. SIGTERM and SIGINT stop the app and end the agent;
/// SIGHUP and SIGUSR1 let it poll now. With `--hub` a device that is not enrolled yet is enrolled
/// first.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The hub's address, for a device that is not enrolled yet
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    pub hub: Option<String>,
    /// How it is enrolled.
    #[command(flatten)]
    pub options: EnrolOptions,
    /// Poll once, finish the update if there is one, stop the app and end
    #[arg(long)]
    pub once: bool,
    /// Poll this often, e.g. `2s`, whatever the hub says
    #[arg(long, value_name = "TIME", value_parser = parse_time, env = "PYTHEAS_POLL_INTERVAL")]
    pub poll_interval: Option<Duration>,
    /// The device's model, which releases may require [default: what the hardware says]
    #[arg(long, value_name = "NAME", env = "PYTHEAS_MODEL")]
    pub model: Option<String>,
    /// Whether older releases may take the place of newer ones
    #[arg(
        long,
        value_name = "WHEN",
        env = "PYTHEAS_DOWNGRADES",
        default_value = "asked"
    )]
    pub downgrades: DowngradePolicy,
    /// Restart the app when it does not say WATCHDOG=1 this often, e.g. `30s`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub watchdog: Option<Duration>,
    /// How the hub is reached.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Read every installed byte again within this time and repair what has rotted; `off`: never
    #[arg(long, value_name = "TIME", default_value = "24h", env = "PYTHEAS_SCRUB", value_parser = parse_scrub)]
    pub scrub: Duration,
    /// What the app may not.
    #[command(flatten)]
    pub confinement: Confinement,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Of a command that shows something about the device.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Of `deny`.
#[derive(Debug, Clone, Args)]
pub struct DenyArgs {
    /// Why, for the people at the hub
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
    /// Where, and how it is shown.
    #[command(flatten)]
    pub asked: StatusArgs,
}

/// Take an app off this device
///
/// The app is stopped and its releases are deleted; its data stays for when it comes back, unless
/// `--data` says otherwise. An app that another one requires is not removed.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// Its name, as `status` shows it
    pub name: Name,
    /// Delete its data, too
    #[arg(long)]
    pub data: bool,
    /// Where, and how it is shown.
    #[command(flatten)]
    pub asked: StatusArgs,
}

fn parse_hub(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("it must begin with `http://` or `https://`".into()),
    }
}

/// A tenant stands in addresses.
fn parse_tenant(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-` and `_` are wanted".into())
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration_ms(text) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("a number with a unit is wanted: `500ms`, `2s`, `5m`, `1h`".into()),
    }
}

/// `off` is no time at all.
fn parse_scrub(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        text => parse_time(text),
    }
}

impl EnrolOptions {
    pub(super) fn enrolment(&self, hub: &str, agent: &AgentSettings) -> Enrolment {
        Enrolment {
            hub: hub.to_owned(),
            root: self.root.clone(),
            root_sha256: self.root_sha256,
            key: self.key.clone(),
            token: self.token.clone(),
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            ca: self.ca.clone(),
            network: agent.network.clone(),
        }
    }
}
