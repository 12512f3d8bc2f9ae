//! The verbs, one file each: typed arguments, a call into a library, one value shown.

pub(crate) mod agent;
pub(crate) mod artifact;
pub(crate) mod audit;
pub(crate) mod audit_sarif;
pub(crate) mod bench;
pub(crate) mod board;
pub(crate) mod build;
pub(crate) mod build_board;
pub(crate) mod build_forms;
pub(crate) mod built_tree;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod check_imports;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod delta;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod enrolment_key;
pub(crate) mod export;
pub(crate) mod follow;
pub(crate) mod hub;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod licences;
pub(crate) mod lock;
pub(crate) mod lock_boards;
pub(crate) mod login;
pub(crate) mod provenance;
pub(crate) mod publish;
pub(crate) mod publish_index;
pub(crate) mod releases;
pub(crate) mod repo;
pub(crate) mod rollout;
pub(crate) mod run_app;
pub(crate) mod sbom;
pub(crate) mod sync;
pub(crate) mod test;
pub(crate) mod test_on;
pub(crate) mod token;
pub(crate) mod traceback;
pub(crate) mod traffic;
pub(crate) mod why;

use std::process::ExitCode;

use crate::{cli::Command, context::Context};

/// Runs the verb.
pub(crate) fn run(command: Command, context: &Context) -> miette::Result<ExitCode> {
    // Those that end soon; `build` itself holds it, too, whoever calls it.
    let works_with_the_cache = matches!(
        command,
        Command::Lock(_)
            | Command::Sync(_)
            | Command::Build(_)
            | Command::Bench(_)
            | Command::Test(_)
            | Command::Check(_)
    );
    let _nothing_vanishes = works_with_the_cache
        .then(|| pytheas_build::use_cache(&pytheas_project::Environment::current()));
    let ends_in_order = works_with_the_cache
        || matches!(
            command,
            Command::Publish(_) | Command::Export(_) | Command::Audit(_)
        );
    let _in_order = ends_in_order.then(crate::interrupt::watch);
    match command {
        Command::Lock(args) => return lock::run(&args, context),
        Command::Check(args) => return check::run(&args, context),
        Command::Audit(args) => return audit::run(&args, context),
        Command::Run(args) => return run_app::run(&args, context),
        Command::Test(args) => return test::run(&args, context),
        Command::Licences(args) => return licences::run(&args, context),
        Command::Agent(args) => return agent::run(args, context),
        Command::Rollout(command) => return rollout::run(&command, context),
        Command::Demo(args) => return demo::run(&args, context),
        Command::Follow(args) => return follow::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Board(command) => board::run(&command, context),
        Command::Cache(command) => cache::run(&command, context),
        Command::Build(args) => build::run(&args, context),
        Command::Sync(args) => sync::run(&args, context),
        Command::Sbom(args) => sbom::run(&args),
        Command::Provenance(command) => provenance::run(&command, context),
        Command::Why(args) => why::run(&args, context),
        Command::Traceback(args) => traceback::run(&args, context),
        Command::Keys(command) => keys::run(&command, context),
        Command::Export(args) => export::run(&args, context),
        Command::Publish(args) => publish::run(&args, context),
        Command::Hub(args) => hub::run(&args, context),
        Command::Device(command) => device::run(&command, context),
        Command::Config(command) => config::run(&command, context),
        Command::Token(command) => token::run(&command, context),
        Command::EnrolmentKey(command) => enrolment_key::run(&command, context),
        Command::Artifact(command) => artifact::run(&command, context),
        Command::Releases(args) => releases::run(&args, context),
        Command::Traffic(args) => traffic::run(&args, context),
        Command::Repo(command) => repo::run(&command, context),
        Command::Delta(command) => delta::run(&command, context),
        Command::Login(args) => login::run(&args, context),
        Command::Logout(args) => login::forget(&args, context),
        Command::Completions(args) => completions::run(&args),
    }
    .map(|()| ExitCode::SUCCESS)
}
