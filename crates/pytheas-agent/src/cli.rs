//! The agent's commands: `pytheas-agent …`, and the same words behind `pytheas agent …`.
//!
//! Nothing is printed here: each command writes to the `out` it is given and returns an
//! [`AgentError`] with its exit code ([`crate::exit`]).

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use clap::{Args, Subcommand};
use pytheas_api::{DeviceId, ddi::Confirmation};
use pytheas_durable::{FileLock, LockError};
use pytheas_release::{Name, Platform, Sha256, parse_duration_ms};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};
use tracing::warn;

use crate::{
    apply::{self, ApplyArgs},
    device::{Device, DowngradePolicy, Settings, Waker},
    enrol::{self, Enrolment},
    error::{AgentError, exit},
    follow::{self, FollowArgs},
    hold,
    launcher::{self, Launched},
    local::{self, HistoryArgs, LogsArgs},
    offline::Order,
    paths::StateDir,
    peers,
    service::{self, InstallServiceArgs},
    settings::{AgentSettings, NetworkArgs},
    status::Status,
    supervisor::Confinement,
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
}

/// How long an agent that was asked to end waits for a hub that does not answer.
const LINGER: Duration = Duration::from_secs(2);

/// Where the agent keeps its state.
#[derive(Debug, Clone, Default, Args)]
pub struct StateArgs {
    /// State directory [default: /var/lib/pytheas, or ~/.local/state/pytheas when not root]
    #[arg(long = "state", value_name = "DIR", env = "PYTHEAS_STATE")]
    pub state: Option<PathBuf>,
}

impl StateArgs {
    /// The state directory.
    pub fn dir(&self) -> StateDir {
        StateDir::new(self.state.clone().unwrap_or_else(StateDir::default_path))
    }
}

/// How a device is enrolled.
#[derive(Debug, Clone, Default, Args)]
pub struct EnrolOptions {
    /// First root metadata of the repository (metadata/1.root.json), brought by hand
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// SHA-256 of the first root metadata, which is then fetched from the hub and compared
    #[arg(long, value_name = "HEX")]
    pub root_sha256: Option<Sha256>,
    /// Enrolment key, to be accepted at once
    #[arg(
        long,
        value_name = "KEY",
        env = "PYTHEAS_ENROLMENT_KEY",
        hide_env_values = true
    )]
    pub key: Option<String>,
    /// Token given out by hand, e.g. by another DDI server; nobody is asked to accept the device
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PYTHEAS_TARGET_TOKEN",
        hide_env_values = true,
        requires = "id"
    )]
    pub token: Option<String>,
    /// Tenant that the token belongs to [default: default]
    #[arg(long, value_name = "NAME", requires = "token", value_parser = parse_tenant)]
    pub tenant: Option<String>,
    /// Device id [default: the host's name and six random digits]
    #[arg(long, value_name = "ID")]
    pub id: Option<DeviceId>,
    /// Name of the device for people [default: its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Trust only the certification authorities in this PEM file for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Make this device known to a hub and wait until it is accepted
///
/// The root of trust is kept first; then the hub is asked until an operator (or the enrolment
/// key) accepts the device. Doing it again is harmless.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// The hub's address, e.g. `https://hub.example`
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    pub hub: String,
    /// How.
    #[command(flatten)]
    pub options: EnrolOptions,
    /// Ask once and do not wait until the device is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// How the hub is reached.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Keep the app running and up to date
///
/// Polls the hub, updates, supervises the app. SIGTERM and SIGINT stop the app and end the agent;
/// SIGHUP and SIGUSR1 let it poll now. With `--hub` a device that is not enrolled yet is enrolled
/// first.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The hub's address, for a device that is not enrolled yet
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    pub hub: Option<String>,
    /// How it is enrolled.
    #[command(flatten)]
    pub options: EnrolOptions,
    /// Poll once, finish the update if there is one, stop the app and end
    #[arg(long)]
    pub once: bool,
    /// Poll this often, e.g. `2s`, whatever the hub says
    #[arg(long, value_name = "TIME", value_parser = parse_time, env = "PYTHEAS_POLL_INTERVAL")]
    pub poll_interval: Option<Duration>,
    /// The device's model, which releases may require [default: what the hardware says]
    #[arg(long, value_name = "NAME", env = "PYTHEAS_MODEL")]
    pub model: Option<String>,
    /// Whether older releases may take the place of newer ones
    #[arg(
        long,
        value_name = "WHEN",
        env = "PYTHEAS_DOWNGRADES",
        default_value = "asked"
    )]
    pub downgrades: DowngradePolicy,
    /// Restart the app when it does not say WATCHDOG=1 this often, e.g. `30s`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub watchdog: Option<Duration>,
    /// How the hub is reached.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Read every installed byte again within this time and repair what has rotted; `off`: never
    #[arg(long, value_name = "TIME", default_value = "24h", env = "PYTHEAS_SCRUB", value_parser = parse_scrub)]
    pub scrub: Duration,
    /// What the app may not.
    #[command(flatten)]
    pub confinement: Confinement,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Of a command that shows something about the device.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Of `deny`.
#[derive(Debug, Clone, Args)]
pub struct DenyArgs {
    /// Why, for the people at the hub
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
    /// Where, and how it is shown.
    #[command(flatten)]
    pub asked: StatusArgs,
}

/// Take an app off this device
///
/// The app is stopped and its releases are deleted; its data stays for when it comes back, unless
/// `--data` says otherwise. An app that another one requires is not removed.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// Its name, as `status` shows it
    pub name: Name,
    /// Delete its data, too
    #[arg(long)]
    pub data: bool,
    /// Where, and how it is shown.
    #[command(flatten)]
    pub asked: StatusArgs,
}

fn parse_hub(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("it must begin with `http://` or `https://`".into()),
    }
}

/// A tenant stands in addresses.
fn parse_tenant(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-` and `_` are wanted".into())
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration_ms(text) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("a number with a unit is wanted: `500ms`, `2s`, `5m`, `1h`".into()),
    }
}

/// `off` is no time at all.
fn parse_scrub(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        text => parse_time(text),
    }
}

impl EnrolOptions {
    fn enrolment(&self, hub: &str, agent: &AgentSettings) -> Enrolment {
        Enrolment {
            hub: hub.to_owned(),
            root: self.root.clone(),
            root_sha256: self.root_sha256,
            key: self.key.clone(),
            token: self.token.clone(),
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            ca: self.ca.clone(),
            network: agent.network.clone(),
        }
    }
}

/// Does what `command` says; text for people and programs goes to `out`. The exit code.
///
/// # Errors
/// [`AgentError`], whose [`AgentError::exit_code`] the program ends with.
pub fn execute(command: &AgentCommand, out: &mut dyn Write) -> Result<u8, AgentError> {
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

pub(crate) fn say(out: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<(), AgentError> {
    put(out, printable(&text.to_string()).as_bytes()).map(drop)
}

/// Whether `c` would steer a terminal or turn its lines around.
pub(crate) fn steers(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes the JSON `text` and a line's end; what would steer a terminal stands in it as `\uXXXX`,
/// which means the same. Whether anybody still listens.
pub(crate) fn put_json(out: &mut dyn Write, text: &str) -> Result<bool, AgentError> {
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match steers(c) {
            // All of them lie below U+10000, and JSON has them inside of strings only.
            true => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => safe.push(c),
        }
    }
    safe.push('\n');
    put(out, safe.as_bytes())
}

/// `text` without what would steer a terminal or turn its lines around: much of it was said by a
/// hub or by the app.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Writes `bytes`; whether anybody still listens (`… | head`: whoever read has read enough).
pub(crate) fn put(out: &mut dyn Write, bytes: &[u8]) -> Result<bool, AgentError> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(AgentError::io(
            "write to",
            std::path::Path::new("standard output"),
        )),
    }
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

/// `run`: returns when a signal (or `--once`) ends it. A thread that waits for a silent hub may
/// still be there then; the process should end.
///
/// # Errors
/// [`AgentError`].
pub fn run(args: &RunArgs) -> Result<u8, AgentError> {
    crate::memory::settle();
    let dir = args.state.dir();
    let guarded = match launcher::launch(&dir)? {
        Launched::Here(guarded) => guarded,
        Launched::Ended(code) => return Ok(code),
    };
    let is_guarded = guarded.is_some();
    let lock = lock(&dir)?;
    let (agent, broken) = AgentSettings::resolve_or_last_good(&dir, &args.network)?;
    if let Some(hub) = &args.hub {
        let enrolment = args.options.enrolment(hub, &agent);
        if !enrol::is_prepared(&dir, &enrolment)? {
            enrol::prepare(&dir, &enrolment, host()?)?;
        }
    }
    let settings = Settings {
        poll_interval: args.poll_interval.or(agent.poll_interval),
        agent,
        watchdog: args.watchdog,
        confinement: args.confinement.clone(),
        scrub: args.scrub,
        once: args.once,
        enrolment_key: args.options.key.clone(),
        name: args.options.name.clone(),
        model: args.model.clone(),
        downgrades: args.downgrades,
    };
    let peers = settings.agent.peers.clone();
    let mut device = Device::open(&dir, settings, lock)?;
    device.has_broken_settings(broken.as_ref());
    device.may_hand_over(guarded);
    if peers.share
        && let Err(error) = peers::share(&dir, &peers)
    {
        // The app and its updates are worth more than the others'.
        warn!("cannot share on {}: {error}", peers.listen);
    }
    service::ready();
    let working = Working::start(device, &dir)?;
    let waker = working.waker.clone();
    let reached = working.end();
    if waker.hands_over() && !is_guarded {
        return Err(launcher::begin_anew(&dir));
    }
    Ok(if args.once && !reached {
        exit::WORLD
    } else {
        exit::OK
    })
}

/// Lets an agent update from a file in this process, the hub left alone.
pub(crate) fn run_order(
    dir: &StateDir,
    order: Order,
    confinement: &Confinement,
    lock: FileLock,
) -> Result<Working, AgentError> {
    let (agent, broken) = AgentSettings::resolve_or_last_good(dir, &NetworkArgs::default())?;
    let settings = Settings {
        poll_interval: None,
        agent,
        watchdog: None,
        confinement: confinement.clone(),
        scrub: Duration::ZERO,
        once: true,
        enrolment_key: None,
        name: None,
        model: None,
        downgrades: DowngradePolicy::default(),
    };
    let mut device = Device::open(dir, settings, lock)?;
    device.has_broken_settings(broken.as_ref());
    device.detach();
    device.apply(order);
    Working::start(device, dir)
}

/// An agent at work in a thread of this process; signals end it.
pub(crate) struct Working {
    waker: Waker,
    reports: Receiver<Option<std::thread::Result<bool>>>,
    ended: Arc<AtomicBool>,
}

impl Working {
    fn start(mut device: Device, dir: &StateDir) -> Result<Self, AgentError> {
        let waker = device.waker();
        let io = |error| AgentError::io("handle signals in", dir.root())(error);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(io)?;
        let (news, reports) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let finished = Arc::clone(&ended);
        let asked = news.clone();
        let signalled = waker.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .stack_size(64 << 10)
            .spawn(move || {
                for signal in signals.forever() {
                    match signal {
                        SIGHUP | SIGUSR1 => signalled.poll(),
                        _ => {
                            signalled.stop();
                            let _ended_already = asked.send(None);
                        }
                    }
                }
            })
            .map_err(io)?;
        std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| device.run()));
                drop(device);
                finished.store(true, Ordering::Release);
                let _nobody_waits = news.send(Some(result));
            })
            .map_err(io)?;
        Ok(Self {
            waker,
            reports,
            ended,
        })
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until it has ended; whether its last poll reached the hub.
    pub(crate) fn end(self) -> bool {
        let mut ended = self.reports.recv().ok().flatten();
        if ended.is_none() {
            // Asked to end. Once the app is gone there is nothing to wait for but a hub that does
            // not answer, and what is half done is taken up at the next start.
            self.waker.wait_for_app();
            ended = self.reports.recv_timeout(LINGER).ok().flatten();
        }
        match ended {
            Some(Ok(reached)) => reached,
            Some(Err(panic)) => resume_unwind(panic),
            None => false,
        }
    }
}

/// `status`.
///
/// # Errors
/// [`AgentError`].
pub fn status(args: &StatusArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let status = Status::read(&args.state.dir())?;
    if args.json {
        let json = serde_json::to_string_pretty(&status).expect("all keys are strings");
        put_json(out, &json)?;
    } else {
        say(out, format_args!("{status}"))?;
    }
    Ok(exit::OK)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_steers_the_terminal() {
        let evil = "a\u{1b}]0;title\u{7}b\u{9b}2J\rc\u{202e}d\n\te\u{7f} ä→日本";
        let mut out = Vec::new();
        say(&mut out, format_args!("{evil}")).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(
            shown,
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}2J\u{fffd}c\u{fffd}d\n\te\u{fffd} ä→日本"
        );
    }
}
