//! `pytheas board`: MicroPython boards.

pub(crate) mod inject;

use crate::context::Context;

/// Verbs on MicroPython boards.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BoardCommand {
    Inject(inject::InjectArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &BoardCommand, context: &Context) -> miette::Result<()> {
    match command {
        BoardCommand::Inject(args) => inject::run(args, context),
    }
}
