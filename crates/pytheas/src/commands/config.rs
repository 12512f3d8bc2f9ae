//! `pytheas config`: settings of the apps on devices.

mod change;
mod history;
mod json;
mod layer;
mod show;
mod transfer;

use clap::Subcommand;

use crate::context::Context;

/// Verbs on settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Show(show::ShowArgs),
    Get(show::GetArgs),
    Set(change::SetArgs),
    Unset(change::UnsetArgs),
    History(history::HistoryArgs),
    Rollback(change::RollbackArgs),
    Export(transfer::ExportArgs),
    Import(transfer::ImportArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &ConfigCommand, context: &Context) -> miette::Result<()> {
    match command {
        ConfigCommand::Show(args) => show::run(args, context),
        ConfigCommand::Get(args) => show::get(args, context),
        ConfigCommand::Set(args) => change::set(args, context),
        ConfigCommand::Unset(args) => change::unset(args, context),
        ConfigCommand::History(args) => history::run(args, context),
        ConfigCommand::Rollback(args) => change::rollback(args, context),
        ConfigCommand::Export(args) => transfer::export(args, context),
        ConfigCommand::Import(args) => transfer::import(args, context),
    }
}
