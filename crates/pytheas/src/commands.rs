//! The verbs, one file each: typed arguments, a call into a library, one value shown.

pub mod agent;
pub mod artifact;
pub mod build;
pub mod completions;
pub mod demo;
pub mod device;
pub mod enrolment_key;
pub mod hub;
pub mod keys;
pub mod lock;
pub mod login;
pub mod publish;
pub mod releases;
pub mod rollout;
pub mod token;
pub mod traffic;

use std::process::ExitCode;

use crate::{cli::Command, context::Context};

/// Runs the verb.
pub fn run(command: Command, context: &Context) -> miette::Result<ExitCode> {
    match command {
        Command::Lock(args) => return lock::run(&args, context),
        Command::Agent(args) => return agent::run(args, context),
        Command::Demo(args) => return demo::run(&args, context),
        Command::Build(args) => build::run(&args, context),
        Command::Keys(command) => keys::run(&command, context),
        Command::Publish(args) => publish::run(&args, context),
        Command::Hub(args) => hub::run(&args, context),
        Command::Device(command) => device::run(&command, context),
        Command::Rollout(command) => rollout::run(&command, context),
        Command::Token(command) => token::run(&command, context),
        Command::EnrolmentKey(command) => enrolment_key::run(&command, context),
        Command::Artifact(command) => artifact::run(&command, context),
        Command::Releases(args) => releases::run(&args, context),
        Command::Traffic(args) => traffic::run(&args, context),
        Command::Login(args) => login::run(&args, context),
        Command::Logout(args) => login::forget(&args, context),
        Command::Completions(args) => completions::run(&args),
    }
    .map(|()| ExitCode::SUCCESS)
}
