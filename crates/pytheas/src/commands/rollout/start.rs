//! `pytheas rollout start`: bring a release to devices, group by group.

use std::process::ExitCode;

use pytheas_api::{DeviceId, GroupSize, RolloutDetail, RolloutRequest};
use pytheas_release::ReleaseRef;

use super::{
    status::Detail,
    waiting::{WaitArgs, wait},
};
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
};

/// Bring a release to devices, group by group
///
/// A group opens when the one before it has succeeded; the rollout pauses by
/// itself when too many devices of a group fail.
///
/// Examples: `pytheas rollout start greenhouse@1.1.0 --groups 1,10%,100%`,
/// `pytheas rollout start greenhouse@2.0.0 broker@2.0.0`
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The release, e.g. `greenhouse@1.1.0`; several are switched to together or not at all
    #[arg(required_unless_present = "artifact", value_name = "NAME@VERSION")]
    release: Vec<ReleaseRef>,
    /// An uploaded artifact instead, e.g. `firmware@7`
    #[arg(long, conflicts_with = "release", value_name = "NAME@VERSION")]
    artifact: Option<ReleaseRef>,
    /// Only these devices, in this order [default: all that fit]
    #[arg(long = "device", value_name = "ID", value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// Sizes of the groups: numbers of devices or shares of all
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100%",
        value_name = "SIZE,…"
    )]
    groups: Vec<GroupSize>,
    /// Percent of a group that must succeed before the next one opens
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    success_threshold: u8,
    /// Pause when more than this percent of a group failed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    error_threshold: u8,
    /// A device that is silent for so long counts as failed
    #[arg(long, default_value = "1d", value_parser = seconds, value_name = "DURATION")]
    silence_deadline: u64,
    /// Let devices go back from a newer release
    #[arg(long)]
    allow_downgrade: bool,
    /// Let somebody at each device agree first (`pytheas-agent approve`)
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) fn seconds(text: &str) -> Result<u64, String> {
    pytheas_release::parse_duration_ms(text)
        .map(|ms| ms / 1000)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{text}` is not a duration such as `30s`, `15m`, `1d`"))
}

/// Starts it.
pub(super) fn run(args: &StartArgs, context: &Context) -> miette::Result<ExitCode> {
    let hub = HubClient::new(&args.hub)?;
    let request = RolloutRequest {
        release: args.release.first().cloned(),
        also: args.release.iter().skip(1).cloned().collect(),
        allow_downgrade: args.allow_downgrade,
        confirm: args.confirm,
        artifact: args.artifact.clone(),
        devices: (!args.devices.is_empty()).then(|| args.devices.clone()),
        groups: args.groups.clone(),
        success_threshold: args.success_threshold,
        error_threshold: args.error_threshold,
        silence_deadline_s: args.silence_deadline,
    };
    let begun: RolloutDetail = hub.post("rollouts", &request)?;
    if args.wait.wait {
        return wait(&hub, begun.rollout.id, &args.wait, context);
    }
    context.show(&Detail(begun))?;
    Ok(ExitCode::SUCCESS)
}
