//! `pytheas rollout status`: how far rollouts are, and what went wrong where.

use std::{io, process::ExitCode};

use pytheas_api::{ActionStatus, RolloutDetail, RolloutView};
use serde::Serialize;

use super::waiting::{WaitArgs, wait};
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show},
};

/// Show how far rollouts are
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One rollout, with its devices [default: all, newest first]
    #[arg(required_if_eq("wait", "true"))]
    id: Option<i64>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    hub: HubArgs,
}

/// Rollouts, as a table.
#[derive(Serialize)]
#[serde(transparent)]
struct Rollouts(Vec<RolloutView>);

impl Show for Rollouts {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self.0.iter().map(row).collect();
        out.table(
            [
                "ROLLOUT", "RELEASE", "STATE", "DONE", "FAILED", "OF", "GROUPS",
            ],
            &rows,
        )?;
        for rollout in &self.0 {
            if let Some(reason) = &rollout.reason {
                out.line(format!("rollout {}: {reason}", rollout.id))?;
            }
        }
        Ok(())
    }
}

fn row(rollout: &RolloutView) -> [String; 7] {
    let groups: Vec<_> = rollout
        .groups
        .iter()
        .map(|g| format!("{} {}", g.size, g.state.as_str()))
        .collect();
    [
        rollout.id.to_string(),
        rollout.release.clone(),
        rollout.state.as_str().to_owned(),
        rollout.sum(|group| group.succeeded).to_string(),
        rollout.sum(|group| group.failed).to_string(),
        rollout.sum(|group| group.total).to_string(),
        groups.join(", "),
    ]
}

/// One rollout with its devices.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Detail(pub(super) RolloutDetail);

impl Show for Detail {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        Rollouts(vec![self.0.rollout.clone()]).text(out)?;
        out.line("")?;
        let rows: Vec<_> = self
            .0
            .devices
            .iter()
            .map(|device| {
                [
                    device.device.to_string(),
                    (device.group + 1).to_string(),
                    device.status.as_str().to_owned(),
                    device.message.clone().unwrap_or_default(),
                ]
            })
            .collect();
        out.table(["DEVICE", "GROUP", "STATUS", "MESSAGE"], &rows)
    }
}

/// Shows them.
pub(super) fn run(args: &StatusArgs, context: &Context) -> miette::Result<ExitCode> {
    let hub = HubClient::new(&args.hub)?;
    match args.id {
        None => context.show(&Rollouts(hub.get("rollouts")?))?,
        Some(id) if args.wait.wait => return wait(&hub, id, &args.wait, context),
        Some(id) => context.show(&Detail(hub.get(&format!("rollouts/{id}"))?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a device of the rollout ended badly.
pub(crate) fn failed(detail: &RolloutDetail) -> bool {
    detail
        .devices
        .iter()
        .any(|device| device.status == ActionStatus::Failed)
}
