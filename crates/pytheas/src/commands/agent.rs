//! `pytheas agent`: the device agent, as `pytheas-agent` runs it alone.

use std::process::ExitCode;

use pytheas_agent::cli::AgentCommand;

use crate::context::Context;

/// Run the device agent, or ask it
///
/// The same program as `pytheas-agent`, which is smaller and needs nothing else.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

/// Hands over to the agent's own command line.
pub(crate) fn run(args: AgentArgs, context: &Context) -> miette::Result<ExitCode> {
    let mut command = args.command;
    if context.json {
        command.in_json();
    }
    if let AgentCommand::Apply(apply) = &mut command {
        apply.json |= context.json;
    }
    match pytheas_agent::cli::execute(&command, &mut std::io::stdout()) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => {
            context.report(&error);
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}
