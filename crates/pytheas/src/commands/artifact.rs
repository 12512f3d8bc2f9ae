//! `pytheas artifact`: plain files for devices that run no Pytheas releases.

mod upload;

use clap::Subcommand;

use crate::context::Context;

/// Verbs on artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    Upload(upload::UploadArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &ArtifactCommand, context: &Context) -> miette::Result<()> {
    match command {
        ArtifactCommand::Upload(args) => upload::run(args, context),
    }
}
