//! The `pytheas` command: parses, calls the libraries, prints.
mod cli;
mod commands;
mod context;
mod credentials;
mod exit;
mod hub_client;
mod interrupt;
mod output;
mod report;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(code) = interrupt::is_to_put_in_order() {
        return code;
    }
    let cli = cli::Cli::parse();
    let context = cli.global.context();
    if std::env::var_os("PYTHEAS_EXIT_WITH_PARENT").is_some() {
        // Our parent may be killed before it can end us.
        let _only_on_linux =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
    cli.global.start_logging();
    // One crypto library for everything: TLS and signatures.
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match commands::run(cli.command, &context) {
        Ok(code) => code,
        Err(error) => {
            context.report(error.as_ref());
            ExitCode::from(exit::of(
                error.code().map(|code| code.to_string()).as_deref(),
            ))
        }
    }
}
