//! Which agent runs: the base at its stable path, or a newer one that was installed like an app.
//!
//! ```text
//! base `run` ─ components/pytheas-agent/current? ─ no ─▶ the agent, in this process
//!              └ yes ─▶ count the start ─▶ child: bin/pytheas-agent run …   (base: its guardian)
//!     child: ready ─▶ healthy    it stays; how it ends is how the base ends
//!     child: ends before, or late ─▶ again, three times in all ─▶ given up: the base works, rolls
//!                                    the component back and tells why
//!     child: handover ─▶ look again what `current` leads to
//! ```
//! Invariants: the base is never overwritten; a start is counted on the disk before it is made, so a
//! release that takes the device down with it is given up as well; every byte of a slot is read
//! before it is started; the child dies with its guardian. The child speaks on its standard input,
//! a socket: one word a line (`ready`, `healthy`, `handover`). `launch.json` and these words are all
//! that agents of different versions must agree on.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use pytheas_durable::{FileLock, faults};
use pytheas_release::{Health, Name, TreeId};
use pytheas_update::{AGENT, Machine};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};
use tracing::{error, info, warn};

use crate::{
    error::AgentError,
    error::exit,
    paths::{self, StateDir},
    service, slots, status,
};

/// The child finds here which tree it was started from.
pub(crate) const TREE_ENV: &str = "PYTHEAS_AGENT_TREE";
/// Starts in a row that may fail.
const MAX_STARTS: u32 = 3;
/// Pause before a start that follows a failed one.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often a child that has not proved itself is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the lock of a child whose guardian was killed is waited for.
const ORPHAN_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long a late child may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Where the agent's own releases lie.
pub(crate) fn home(dir: &StateDir) -> Option<StateDir> {
    let name: Name = AGENT.parse().ok()?;
    Some(dir.component(&name))
}

/// How the starts of a release went (`components/pytheas-agent/launch.json`, format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The release's tree.
    tree: TreeId,
    /// Starts in a row after which it did not become healthy; counted before each.
    failed: u32,
    /// It has been healthy.
    proved: bool,
    /// Why it failed last.
    #[serde(default)]
    because: String,
}

impl Record {
    fn path(home: &StateDir) -> PathBuf {
        home.root().join("launch.json")
    }

    /// The record of `tree`; a new one when there is none that can be read.
    pub(crate) fn of(home: &StateDir, tree: TreeId) -> Self {
        paths::read(&Self::path(home))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|found| found.format == 1 && found.tree == tree)
            .unwrap_or_else(|| Self {
                format: 1,
                tree,
                failed: 0,
                proved: false,
                because: String::new(),
            })
    }

    fn save(&self, home: &StateDir) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        pytheas_durable::replace(&Self::path(home), &bytes)
    }

    /// Why the release is not started any more, if it is not.
    pub(crate) fn given_up(&self) -> Option<&str> {
        (self.failed >= MAX_STARTS).then_some(match self.because.as_str() {
            "" => "the device or its agent ended before the new agent had proved itself",
            because => because,
        })
    }
}

/// What a started agent is to its guardian.
#[derive(Debug)]
pub(crate) struct Guarded {
    /// The tree it was started from.
    pub(crate) tree: TreeId,
    line: Option<UnixStream>,
}

impl Guarded {
    fn from_env() -> Option<Self> {
        let tree = std::env::var(TREE_ENV).ok()?.parse().ok()?;
        let line = io::stdin().as_fd().try_clone_to_owned().ok();
        Some(Self {
            tree,
            line: line.map(UnixStream::from),
        })
    }

    /// Tells the guardian a word.
    pub(crate) fn tell(&self, word: &str) {
        if let Some(mut line) = self.line.as_ref() {
            let _guardian_gone_means_killed = line.write_all(format!("{word}\n").as_bytes());
        }
    }
}

/// Whether this program has to work although a newer agent was installed, because that one cannot.
pub(crate) fn is_last_resort(dir: &StateDir) -> bool {
    let is_guarded = std::env::var_os(TREE_ENV).is_some();
    !is_guarded && home(dir).is_some_and(|home| slots::current(&home).is_some())
}

/// Who is to work.
pub(crate) enum Launched {
    /// This process; guarded when it is a newer agent.
    Here(Option<Guarded>),
    /// A newer agent did, and ended with this code.
    Ended(u8),
}

/// Whether this program was started in a way that can be repeated for another agent.
pub(crate) fn can_hand_over() -> bool {
    arguments(std::env::args_os().collect()).is_some()
}

/// What another agent is started with: `run …`, also when this program is `pytheas agent run …`.
fn arguments(all: Vec<OsString>) -> Option<Vec<OsString>> {
    let own = all.get(1..)?;
    let run = own.iter().position(|word| word == "run")?;
    let from = match run.checked_sub(1).map(|before| own[before].as_os_str()) {
        Some(before) if before == OsStr::new("agent") => run,
        _ => 0,
    };
    Some(own[from..].to_vec())
}

/// Begins this program anew, to look again which agent is to work. Only returns when it cannot.
pub(crate) fn begin_anew(dir: &StateDir) -> AgentError {
    faults::point("agent:handover:exec");
    let mut all = std::env::args_os();
    let name = all.next().unwrap_or_else(|| AGENT.into());
    let error = Command::new("/proc/self/exe").arg0(name).args(all).exec();
    AgentError::io("start the agent again in", dir.root())(error)
}

/// Looks who is to work, and guards a newer agent for as long as it does.
///
/// # Errors
/// [`AgentError`]: another agent is at work, or the newer one cannot be guarded.
pub(crate) fn launch(dir: &StateDir) -> Result<Launched, AgentError> {
    if let Some(guarded) = Guarded::from_env() {
        return Ok(Launched::Here(Some(guarded)));
    }
    let arguments = arguments(std::env::args_os().collect());
    let (Some(home), Some(arguments)) = (home(dir), arguments) else {
        return Ok(Launched::Here(None));
    };
    if slots::current(&home).is_none() {
        return Ok(Launched::Here(None));
    }
    let lock = FileLock::acquire(&home.root().join("launch.lock"))
        .map_err(AgentError::lock(dir.root()))?;
    drop(free_lock(dir)?); // an agent that works already is no failure of the one to be started
    let mut guardian: Option<Guardian> = None;
    loop {
        let Some(record) = next(dir, &home) else {
            drop(lock);
            return match guardian {
                None => Ok(Launched::Here(None)),
                Some(_) => Err(begin_anew(dir)), // without this one's signal handlers
            };
        };
        let guardian = match &mut guardian {
            Some(guardian) => guardian,
            none => none.insert(Guardian::new().map_err(AgentError::io("guard", dir.root()))?),
        };
        let guarded = guardian.guard(dir, &home, record, &arguments);
        match guarded.map_err(AgentError::io("write", home.root()))? {
            Some(code) => return Ok(Launched::Ended(code)),
            None if guardian.asked.load(Ordering::Relaxed) => return Ok(Launched::Ended(exit::OK)),
            None => {}
        }
    }
}

/// The agent's lock. The child of a guardian that was killed holds it for a moment longer.
fn free_lock(dir: &StateDir) -> Result<FileLock, AgentError> {
    let deadline = Instant::now() + ORPHAN_ENDS_WITHIN;
    loop {
        match crate::cli::lock(dir) {
            Err(AgentError::Locked { .. }) if Instant::now() < deadline => {
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// The release to start; none when the base is to work.
fn next(dir: &StateDir, home: &StateDir) -> Option<Record> {
    let tree = slots::current(home)?;
    let mut record = Record::of(home, tree);
    let damage = match slots::slot_damage(home, tree) {
        Ok(None) => None,
        Ok(Some(damage)) => Some(damage),
        Err(error) => Some(error.to_string()),
    };
    if let Some(damage) = &damage {
        error!(tree = %tree, "the newer agent is damaged: {damage}; the base works");
    } else if let Some(because) = record.given_up() {
        error!(tree = %tree, "the newer agent is given up: {because}; the base works");
    } else {
        return Some(record);
    }
    let is_newer = matches!(
        status::load_machine(dir),
        Err(AgentError::State { source, .. }) if source.is_newer()
    );
    if !is_newer {
        return None;
    }
    if !record.proved {
        // Without such a copy the base begins a state of its own: see `is_last_resort`.
        if let Ok(bytes) = paths::read(&before(home))
            && Machine::parse(&bytes).is_ok()
            && pytheas_durable::replace(&dir.state(), &bytes).is_ok()
        {
            warn!("the update state is again what it was before the newer agent");
        }
        return None;
    }
    if damage.is_some() {
        return None;
    }
    // Only the newer agent can read the state: it has to prove itself once more.
    std::thread::sleep(STOP_TIMEOUT);
    record.failed = 0;
    record.proved = false;
    Some(record)
}

/// The update state as it was before a release was started for the first time.
fn before(home: &StateDir) -> PathBuf {
    home.root().join("state.before")
}

/// Guards a child: hands signals on, hears it, counts how its starts go.
struct Guardian {
    child: Arc<AtomicI32>,
    /// This program was asked to end.
    asked: Arc<AtomicBool>,
}

impl Guardian {
    fn new() -> io::Result<Self> {
        let (child, asked) = (
            Arc::new(AtomicI32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let (to, end) = (Arc::clone(&child), Arc::clone(&asked));
        std::thread::Builder::new()
            .name("signals".into())
            .stack_size(64 << 10)
            .spawn(move || {
                for signal in signals.forever() {
                    if matches!(signal, SIGTERM | SIGINT) {
                        end.store(true, Ordering::SeqCst);
                    }
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        send(to.load(Ordering::SeqCst), signal);
                    }
                }
            })?;
        Ok(Self { child, asked })
    }

    /// Starts a release once and sees it through. The code to end with, or nothing when it is to be
    /// looked again who works.
    fn guard(
        &self,
        dir: &StateDir,
        home: &StateDir,
        mut record: Record,
        arguments: &[OsString],
    ) -> io::Result<Option<u8>> {
        let tree = record.tree;
        if !record.proved && record.failed == 0 {
            match paths::read(&dir.state()) {
                Ok(bytes) => pytheas_durable::replace(&before(home), &bytes)?,
                // Gone or damaged: the agent that starts says so, and an older copy is no way back.
                Err(_) => pytheas_durable::remove_tree(&before(home))?,
            }
        }
        record.failed += 1;
        match record.save(home) {
            Err(error) if record.proved => warn!("cannot count a start: {error}"),
            other => other?,
        }
        faults::point("agent:launch:counted");
        let (line, theirs) = UnixStream::pair()?;
        let (program, health) = match slots::record(home, tree) {
            Ok(found) => (found.entry.under(&home.slot(tree)), found.health),
            Err(error) => {
                record.because = crate::http::chain(&error);
                record.failed = MAX_STARTS;
                record.save(home)?;
                return Ok(None);
            }
        };
        let mut child = match start(&program, arguments, tree, theirs) {
            Ok(child) => child,
            Err(error) => {
                record.because = format!("cannot start `{}`: {error}", program.display());
                return self.failed(home, &record);
            }
        };
        info!(tree = %tree, pid = child.id(), "started the agent `{}`", program.display());
        self.child.store(child.id().cast_signed(), Ordering::SeqCst);
        if self.asked.load(Ordering::SeqCst) {
            send(child.id().cast_signed(), Signal::TERM);
        }
        faults::point("agent:launch:spawned");
        let mut words = Words::new(line)?;
        let proof = prove(&mut child, &mut words, &health)?;
        if let Proof::Healthy = proof {
            record.proved = true;
            record.failed = 0;
            if let Err(error) = record.save(home) {
                warn!("cannot note that the newer agent works: {error}");
            }
            faults::point("agent:launch:healthy");
        }
        let status = match proof {
            Proof::Healthy => child.wait()?,
            Proof::Ended(status) => status,
            Proof::Late => end(&mut child)?,
        };
        self.child.store(0, Ordering::SeqCst);
        words.hear();
        let moved = slots::current(home) != Some(tree);
        if self.asked.load(Ordering::SeqCst) {
            if !matches!(proof, Proof::Healthy) {
                record.failed -= 1; // nobody let it prove itself
                record.save(home)?;
            }
            return Ok(Some(code(status)));
        }
        if words.handover && moved {
            return Ok(None);
        }
        record.because = match proof {
            Proof::Healthy if status.signal().is_none() && status.code() != Some(PANICKED) => {
                return Ok(Some(code(status)));
            }
            Proof::Healthy => {
                warn!("the agent ended: {status}; it is started again");
                std::thread::sleep(TRY_AGAIN_AFTER);
                return Ok(None);
            }
            Proof::Ended(status) => {
                format!("the new agent ended before it had proved itself: {status}")
            }
            Proof::Late => {
                if !record.proved {
                    record.failed = MAX_STARTS;
                }
                let seconds = health.deadline_ms as f64 / 1000.0;
                format!("the new agent did not prove itself within {seconds} s")
            }
        };
        self.failed(home, &record)
    }

    fn failed(&self, home: &StateDir, record: &Record) -> io::Result<Option<u8>> {
        warn!(tree = %record.tree, starts = record.failed, "{}", record.because);
        record.save(home)?;
        if record.given_up().is_none() {
            std::thread::sleep(TRY_AGAIN_AFTER);
        }
        Ok(None)
    }
}

fn start(
    program: &Path,
    arguments: &[OsString],
    tree: TreeId,
    line: UnixStream,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(TREE_ENV, tree.to_string())
        .env_remove("NOTIFY_SOCKET") // systemd hears the guardian only
        .stdin(OwnedFd::from(line));
    crate::supervisor::die_with_the_agent(&mut command);
    command.spawn()
}

/// How a start went.
enum Proof {
    Healthy,
    Ended(ExitStatus),
    Late,
}

fn prove(child: &mut Child, words: &mut Words, health: &Health) -> io::Result<Proof> {
    let deadline = Instant::now() + Duration::from_millis(health.deadline_ms);
    let mut is_told = false;
    loop {
        words.hear();
        if words.ready && !std::mem::replace(&mut is_told, words.ready) {
            service::ready();
        }
        if words.healthy {
            return Ok(Proof::Healthy);
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Proof::Ended(status));
        }
        if Instant::now() >= deadline {
            return Ok(Proof::Late);
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a child, kindly first.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    send(child.id().cast_signed(), Signal::TERM);
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait()
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ended_already = kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(exit::WORLD),
        (None, signal) => {
            128_u8.saturating_add(signal.and_then(|s| u8::try_from(s).ok()).unwrap_or(0))
        }
    }
}

/// What a child has said.
struct Words {
    line: UnixStream,
    begun: Vec<u8>,
    ready: bool,
    healthy: bool,
    handover: bool,
}

impl Words {
    fn new(line: UnixStream) -> io::Result<Self> {
        line.set_nonblocking(true)?;
        Ok(Self {
            line,
            begun: Vec::new(),
            ready: false,
            healthy: false,
            handover: false,
        })
    }

    /// Takes in what was said; at most 4 KiB, so that a child that shouts changes nothing.
    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        let Ok(len) = self.line.read(&mut buffer) else {
            return;
        };
        for byte in &buffer[..len] {
            if *byte != b'\n' {
                self.begun.push(*byte);
                self.begun.truncate(32);
                continue;
            }
            match self.begun.as_slice() {
                b"ready" => self.ready = true,
                b"healthy" => self.healthy = true,
                b"handover" => self.handover = true,
                _ => {} // a newer agent's
            }
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_agent_is_started_with_the_same_arguments() {
        let given = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let words = arguments(words)?;
            Some(
                words
                    .iter()
                    .map(|w| w.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        for (line, expected) in [
            ("pytheas-agent run --state /s", Some("run --state /s")),
            ("pytheas-agent --log debug run", Some("--log debug run")),
            ("pytheas -v agent run --once", Some("run --once")),
            ("pytheas demo", None),
            ("pytheas-agent", None),
        ] {
            assert_eq!(given(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn words_are_heard_whole_and_nothing_else_matters() {
        let (mut child, line) = UnixStream::pair().unwrap();
        let mut words = Words::new(line).unwrap();
        words.hear();
        child.write_all(b"rea").unwrap();
        words.hear();
        assert!(!words.ready);
        child.write_all(b"dy\nhealthy!\n").unwrap();
        child.write_all(&[b'x'; 500]).unwrap();
        child.write_all(b"\nhandover\n").unwrap();
        words.hear();
        assert_eq!(
            (words.ready, words.healthy, words.handover),
            (true, false, true)
        );
    }
}
