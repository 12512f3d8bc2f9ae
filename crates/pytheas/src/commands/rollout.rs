//! `pytheas rollout`: releases on their way to devices.

mod change;
mod start;
mod status;
mod waiting;

use std::process::ExitCode;

use clap::Subcommand;
pub(crate) use status::failed;

use crate::context::Context;

/// Verbs on rollouts.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    Start(start::StartArgs),
    Status(status::StatusArgs),
    /// Start no further device; what was begun goes on
    Pause(change::ChangeArgs),
    /// Go on after a pause
    Resume(change::ChangeArgs),
    /// Take the release back from every device that has not ended
    Abort(change::ChangeArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &RolloutCommand, context: &Context) -> miette::Result<ExitCode> {
    match command {
        RolloutCommand::Start(args) => return start::run(args, context),
        RolloutCommand::Status(args) => return status::run(args, context),
        RolloutCommand::Pause(args) => change::run(args, "pause", context),
        RolloutCommand::Resume(args) => change::run(args, "resume", context),
        RolloutCommand::Abort(args) => change::run(args, "abort", context),
    }
    .map(|()| ExitCode::SUCCESS)
}
