//! The agent's commands: `pytheas-agent …`, and the same words behind `pytheas agent …`.
//!
//! Nothing is printed here: each command writes to the `out` it is given and returns an
//! [`AgentError`] with its exit code ([`crate::exit`]).

mod args;
mod failure;
mod output;
mod run;

use std::{
    io::{self, Write},
    time::Duration,
};

pub(crate) use args::parse_time;
pub use args::{DenyArgs, EnrolArgs, EnrolOptions, RemoveArgs, RunArgs, StateArgs, StatusArgs};
use clap::Subcommand;
pub use output::printable;
pub(crate) use output::{put, put_json, say, steers};
use pytheas_api::ddi::Confirmation;
use pytheas_durable::{FileLock, LockError};
use pytheas_release::Platform;
pub use run::run;
pub(crate) use run::run_order;

use crate::{
    apply::{self, ApplyArgs},
    enrol,
    error::{AgentError, exit},
    follow::{self, FollowArgs},
    hold,
    local::{self, HistoryArgs, LogsArgs},
    paths::StateDir,
    service::{self, InstallServiceArgs},
    settings::AgentSettings,
    status::Status,
};

/// What the agent can do.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make this device known to a hub and wait until it is accepted
    Enrol(EnrolArgs),
    /// Keep the app running and up to date
    Run(RunArgs),
    /// Show the device, its release, its update and its app
    Status(StatusArgs),
    /// Show what happened to the device's releases
    History(HistoryArgs),
    /// Go back to the release before the running one
    Rollback(StatusArgs),
    /// Check every byte of the running release
    Verify(StatusArgs),
    /// Update this device from a file, without a hub
    Apply(ApplyArgs),
    /// Update this device from the signed tags of a git repository
    Follow(FollowArgs),
    /// Switch to no other release until `release`; downloads go on
    Hold(StateArgs),
    /// End a hold, and agree to the update that waits for consent
    Release(StateArgs),
    /// Agree to the update that waits: for consent, or to be confirmed for the hub
    Approve(StatusArgs),
    /// Say no to the update that waits; it goes on waiting
    Deny(DenyArgs),
    /// Take an app off this device
    Remove(RemoveArgs),
    /// Show what the app has written
    Logs(LogsArgs),
    /// Write a systemd unit that runs the agent, hardened
    InstallService(InstallServiceArgs),
}

impl AgentCommand {
    /// Lets the command answer in JSON, if it can.
    pub fn in_json(&mut self) {
        match self {
            Self::Status(args)
            | Self::Rollback(args)
            | Self::Verify(args)
            | Self::Approve(args) => args.json = true,
            Self::Deny(args) => args.asked.json = true,
            Self::Remove(args) => args.asked.json = true,
            Self::History(args) => args.json = true,
            Self::Logs(args) => args.json = true,
            Self::Apply(args) => args.json = true,
            Self::Enrol(_)
            | Self::Run(_)
            | Self::Hold(_)
            | Self::Follow(_)
            | Self::Release(_)
            | Self::InstallService(_) => {}
        }
    }

    /// Whether it answers in JSON.
    fn is_in_json(&self) -> bool {
        match self {
            Self::Status(args)
            | Self::Rollback(args)
            | Self::Verify(args)
            | Self::Approve(args) => args.json,
            Self::Deny(args) => args.asked.json,
            Self::Remove(args) => args.asked.json,
            Self::History(args) => args.json,
            Self::Logs(args) => args.json,
            Self::Apply(args) => args.json,
            Self::Enrol(_)
            | Self::Run(_)
            | Self::Hold(_)
            | Self::Follow(_)
            | Self::Release(_)
            | Self::InstallService(_) => false,
        }
    }
}

/// Does what `command` says; text for people and programs goes to `out`. The exit code.
///
/// # Errors
/// [`AgentError`], whose [`AgentError::exit_code`] the program ends with.
pub fn execute(command: &AgentCommand, out: &mut dyn Write) -> Result<u8, AgentError> {
    let done = carry_out(command, out);
    match &done {
        Err(error) if command.is_in_json() => failure::show(error, out)?,
        _ => {}
    }
    done
}

fn carry_out(command: &AgentCommand, out: &mut dyn Write) -> Result<u8, AgentError> {
    match command {
        AgentCommand::Enrol(args) => enrol(args, out),
        AgentCommand::Run(args) => run(args),
        AgentCommand::Status(args) => status(args, out),
        AgentCommand::History(args) => local::history(args, out),
        AgentCommand::Rollback(args) => local::rollback(args, out),
        AgentCommand::Verify(args) => local::verify(args, out),
        AgentCommand::Follow(args) => follow::follow(args, out),
        AgentCommand::Apply(args) => apply::apply(args, out),
        AgentCommand::Hold(args) => hold(args, out),
        AgentCommand::Release(args) => release(args, out),
        AgentCommand::Approve(args) => local::answer(args, Confirmation::Confirmed, None, out),
        AgentCommand::Remove(args) => local::remove(args, out),
        AgentCommand::Deny(args) => {
            let because = args.because.as_deref();
            local::answer(&args.asked, Confirmation::Denied, because, out)
        }
        AgentCommand::Logs(args) => local::logs(args, out),
        AgentCommand::InstallService(args) => service::install(args, out),
    }
}

pub(crate) fn host() -> Result<Platform, AgentError> {
    Platform::host().map_err(|error| {
        AgentError::io("name the platform of", std::path::Path::new("/"))(io::Error::other(error))
    })
}

pub(crate) fn lock(dir: &StateDir) -> Result<FileLock, AgentError> {
    pytheas_durable::create_dir_all(dir.root()).map_err(AgentError::io("create", dir.root()))?;
    // An agent that was killed while it started the app: for a moment, until it has become the app
    // or noticed, the app's process still holds what the agent held.
    let mut patience = 200;
    loop {
        match FileLock::acquire(&dir.lock()) {
            Err(LockError::Held { holder, .. }) if patience > 0 && is_gone(&holder) => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.map_err(AgentError::lock(dir.root())),
        }
    }
}

/// Whether a number is that of no process, by all that is known.
fn is_gone(pid: &str) -> bool {
    pid.parse::<u32>().is_ok()
        && matches!(std::fs::exists(format!("/proc/{pid}")), Ok(false))
        && std::path::Path::new("/proc/self").exists()
}

/// `enrol`.
///
/// # Errors
/// [`AgentError`].
pub fn enrol(args: &EnrolArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let dir = args.state.dir();
    let _lock = lock(&dir)?;
    let settings = AgentSettings::resolve(&dir, &args.network)?;
    let enrolment = args.options.enrolment(&args.hub, &settings);
    let mut identity = enrol::prepare(&dir, &enrolment, host()?)?;
    let http = enrol::connect(&identity, &settings.network)?;
    let (key, name) = (args.options.key.as_deref(), args.options.name.as_deref());
    let id = identity.device_id.clone();
    let mut told = false;
    let accepted = identity.token.is_some() && args.options.token.is_some();
    while !accepted && !enrol::ask(&dir, &mut identity, &http, key, name)? {
        if !told {
            told = true;
            say(
                out,
                format_args!("device `{id}` waits to be accepted: `pytheas device accept {id}`\n"),
            )?;
        }
        if args.no_wait {
            return Ok(exit::OK);
        }
        std::thread::sleep(enrol::ASK_INTERVAL);
    }
    say(
        out,
        format_args!("device `{id}` is enrolled at `{}`\n", identity.hub),
    )?;
    Ok(exit::OK)
}

/// `status`.
///
/// # Errors
/// [`AgentError`].
pub fn status(args: &StatusArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let (status, broken) = Status::read(&args.state.dir())?;
    if args.json {
        let json = serde_json::to_string_pretty(&status).expect("all keys are strings");
        put_json(out, &json)?;
    } else {
        say(out, format_args!("{status}"))?;
    }
    match broken {
        Some(broken) => Err(AgentError::Shown(Box::new(broken))),
        None => Ok(exit::OK),
    }
}

/// `hold`.
///
/// # Errors
/// [`AgentError`].
pub fn hold(args: &StateArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    hold::hold(&args.dir())?;
    say(
        out,
        format_args!("no other release is switched to until `pytheas-agent release`\n"),
    )?;
    Ok(exit::OK)
}

/// `release`.
///
/// # Errors
/// [`AgentError`].
pub fn release(args: &StateArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let released = hold::release(&args.dir())?;
    match (&released.agreed_to, released.was_held) {
        (Some(release), _) => say(out, format_args!("the update to `{release}` goes on\n"))?,
        (None, true) => say(out, format_args!("updates go on\n"))?,
        (None, false) => say(out, format_args!("no update waits\n"))?,
    }
    Ok(exit::OK)
}
