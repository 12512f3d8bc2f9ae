//! `pytheas device`: the fleet's members.

mod accept;
mod add;
mod delete;
mod group;
mod list;
mod show;

use clap::Subcommand;

use crate::context::Context;

/// Verbs on devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Accept(accept::AcceptArgs),
    Add(add::AddArgs),
    Group(group::GroupArgs),
    #[command(visible_alias = "remove")]
    Delete(delete::DeleteArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &DeviceCommand, context: &Context) -> miette::Result<()> {
    match command {
        DeviceCommand::List(args) => list::run(args, context),
        DeviceCommand::Show(args) => show::run(args, context),
        DeviceCommand::Accept(args) => accept::run(args, context),
        DeviceCommand::Add(args) => add::run(args, context),
        DeviceCommand::Group(args) => group::run(args, context),
        DeviceCommand::Delete(args) => delete::run(args, context),
    }
}
