//! Waits until a rollout has ended, for as long as it may take, and says whom it waits for.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use miette::Diagnostic;
use pytheas_api::{DeviceId, RolloutDetail, RolloutState};
use thiserror::Error;

use super::{start::seconds, status::Detail};
use crate::{
    context::Context,
    hub_client::{HubClient, HubError},
    output::{ago, now_ms, span},
};

/// Devices named of those that are waited for.
const NAMED: usize = 5;
/// After so long without a change it is said whom the rollout waits for.
const QUIET: Duration = Duration::from_secs(30);

/// Whether, and how long, a verb waits.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct WaitArgs {
    /// Wait until the rollout ends or pauses; exit code 1 unless it finished
    #[arg(long)]
    pub(super) wait: bool,
    /// Wait so long at most; exit code 3 when it has not ended, and it goes on [default: no limit]
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = seconds)]
    timeout: Option<u64>,
}

/// The time is over and the rollout goes on.
#[derive(Debug, Error, Diagnostic)]
#[error("rollout {id} has not ended after {waited}: it waits for {waits_for}")]
#[diagnostic(
    code(pytheas::rollout::timeout),
    help(
        "it goes on: `pytheas rollout status {id} --wait` waits again, `pytheas rollout abort {id}` ends it"
    )
)]
struct TimedOut {
    id: i64,
    waited: String,
    waits_for: String,
}

/// Waits for a rollout and shows it; a failure unless it finished.
pub(super) fn wait(
    hub: &HubClient,
    id: i64,
    args: &WaitArgs,
    context: &Context,
) -> miette::Result<ExitCode> {
    let begin = Instant::now();
    let progress = context.progress();
    let (mut told, mut told_at, mut named) = (String::new(), begin, false);
    let (detail, ended) = loop {
        let detail: RolloutDetail = hub.get(&format!("rollouts/{id}"))?;
        let rollout = &detail.rollout;
        let busy = rollout.sum(|group| group.active) > 0;
        let now = format!(
            "{}: {} of {} done, {} failed",
            rollout.release,
            rollout.sum(|group| group.succeeded),
            rollout.sum(|group| group.total),
            rollout.sum(|group| group.failed),
        );
        if now != told {
            progress.step(now.clone());
            (told, told_at, named) = (now, Instant::now(), false);
        } else if !named && told_at.elapsed() >= QUIET {
            progress.step(format!("{now}; waits for {}", waits_for(hub, &detail)?));
            named = true;
        }
        match rollout.state {
            RolloutState::Finished => break (detail, true),
            RolloutState::Paused | RolloutState::Aborted if !busy => break (detail, true),
            _ => {}
        }
        let limit = args.timeout.map(Duration::from_secs);
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break (detail, false);
        }
        let pause = Duration::from_millis(300);
        std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
    };
    drop(progress);
    let state = detail.rollout.state;
    let waits_for = match ended {
        true => String::new(),
        false => waits_for(hub, &detail)?,
    };
    context.show(&Detail(detail))?;
    if !ended {
        let waited = args.timeout.unwrap_or_default().saturating_mul(1000);
        return Err(TimedOut {
            id,
            waited: span(i64::try_from(waited).unwrap_or(i64::MAX)),
            waits_for,
        }
        .into());
    }
    Ok(match state {
        RolloutState::Finished => ExitCode::SUCCESS,
        _ => ExitCode::from(crate::exit::USER),
    })
}

/// The devices that have an open action, those never seen first.
fn waits_for(hub: &HubClient, detail: &RolloutDetail) -> Result<String, HubError> {
    let open = |id: &DeviceId| {
        let of_rollout = detail.devices.iter().find(|device| device.device == *id)?;
        let is_open = of_rollout.action.is_some() && !of_rollout.status.is_closed();
        is_open.then_some(of_rollout.status)
    };
    let now = now_ms();
    let mut waited: Vec<_> = hub
        .devices(None)?
        .into_iter()
        .filter_map(|device| Some((device.last_seen_ms, device.id.clone(), open(&device.id)?)))
        .collect();
    waited.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let named: Vec<String> = waited
        .iter()
        .take(NAMED)
        .map(|(seen, id, status)| {
            let seen = seen.map_or("never seen".into(), |then| {
                format!("seen {}", ago(then, now))
            });
            format!("`{id}` ({}, {seen})", status.as_str())
        })
        .collect();
    let more = waited.len() - named.len();
    Ok(match (named.is_empty(), more) {
        (true, _) => "no device: its next group has not opened".to_owned(),
        (false, 0) => named.join(", "),
        (false, more) => format!("{} and {more} more", named.join(", ")),
    })
}
