//! The device agent alone: a small binary without builder and hub.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use miette::Diagnostic as _;
use pytheas_agent::cli::{AgentCommand, execute, printable};
use tracing_subscriber::filter::LevelFilter;

/// Keeps an app on this device running and up to date
///
/// Exit codes: 0 done, 1 or 2 wrong use, 3 the network, the disk or another agent is in the way,
/// 4 refused for safety.
#[derive(Parser)]
#[command(name = "pytheas-agent", version)]
struct Cli {
    /// What is logged to stderr: error, warn, info, debug, trace
    #[arg(long, global = true, default_value = "info", env = "PYTHEAS_LOG")]
    log: LevelFilter,
    #[command(subcommand)]
    command: AgentCommand,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(cli.log)
        .with_ansi(false)
        .with_target(false)
        .init();
    match execute(&cli.command, &mut io::stdout()) {
        Ok(code) => code.into(),
        Err(error) => {
            let mut text = format!("error: {error}\n");
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                text.push_str(&format!("  because: {cause}\n"));
                next = cause.source();
            }
            if let Some(help) = error.help() {
                text.push_str(&format!("  help: {help}\n"));
            }
            let _nobody_listens = io::stderr().write_all(printable(&text).as_bytes());
            error.exit_code().into()
        }
    }
}
