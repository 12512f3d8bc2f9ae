//! What an operator asks of an agent that runs already: one small file and a signal.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use pytheas_durable::FileLock;
use pytheas_release::Name;
use pytheas_update::{Event, Installed, Machine, State};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    error::AgentError,
    offline::Order,
    paths::StateDir,
    remove::Data,
    status::{load_machine, running_agent},
};

/// How long a request of somebody else may lie there: the agent may be waiting for a hub.
const OTHERS_WAIT: Duration = Duration::from_secs(120);
/// How long whoever works in the state directory is given to become an agent, or to end.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wanted {
    /// The previous release back.
    Rollback,
    /// An update from a file.
    Apply(Order),
    /// A component off the device.
    Remove {
        /// Which.
        name: Name,
        /// What becomes of its data.
        data: Data,
    },
}

/// The content of `request.json` (format 1).
#[derive(Serialize, Deserialize)]
struct Request {
    format: u32,
    wanted: Wanted,
}

/// Whether the machine can go back now.
///
/// # Errors
/// [`AgentError::Busy`], [`AgentError::NoPrevious`].
pub(crate) fn rollback_possible(dir: &StateDir, machine: &Machine) -> Result<(), AgentError> {
    if !matches!(machine.state(), State::Idle) {
        return Err(AgentError::Busy {
            state: machine.state().name().to_owned(),
        });
    }
    let back = machine.way_back();
    let is_there = |previous: &&Installed| {
        let name = &previous.release.name;
        let dir = match machine.first_name() == Some(name) {
            true => dir.clone(),
            false => dir.component(name),
        };
        dir.slot(previous.tree).is_dir()
    };
    match !back.is_empty() && back.iter().all(is_there) {
        true => Ok(()),
        false => Err(AgentError::NoPrevious),
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The releases that are to run.
    pub to: Vec<String>,
    /// The agent that does it; none runs when absent, and it is done when one starts.
    pub agent_pid: Option<u32>,
}

/// Asks for the previous release.
///
/// # Errors
/// [`AgentError::Busy`], [`AgentError::NoPrevious`], or a file that cannot be written.
pub(crate) fn rollback(dir: &StateDir) -> Result<Asked, AgentError> {
    let look = || {
        let machine = load_machine(dir)?.unwrap_or_default();
        rollback_possible(dir, &machine)?;
        let back = machine.way_back();
        let to: Vec<String> = back
            .iter()
            .map(|previous| previous.release.to_string())
            .collect();
        Ok::<_, AgentError>((machine, to))
    };
    if let Some(agent) = agent(dir) {
        let (_, to) = look()?;
        let path = dir.request();
        ask(dir, agent, Wanted::Rollback)?;
        // Until it has taken the file, up to the longest request it may be waiting for.
        for _ in 0..400 {
            if !path.exists() {
                return Ok(Asked {
                    to,
                    agent_pid: Some(agent),
                });
            }
            std::thread::sleep(LOOK);
        }
        return Ok(Asked {
            to,
            agent_pid: Some(agent),
        });
    }
    look()?; // who may not write learns that there is nothing to write
    let _lock = FileLock::acquire(&dir.lock()).map_err(AgentError::lock(dir.root()))?;
    // An agent may have worked since.
    let (machine, to) = look()?;
    let path = dir.state();
    let next = machine.step(Event::RollbackWanted);
    pytheas_durable::replace(&path, &next.encode()).map_err(AgentError::io("write", &path))?;
    Ok(Asked {
        to,
        agent_pid: None,
    })
}

/// Asks the agent `pid` to update from a file; it has taken the order when `request.json` is gone.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn apply(dir: &StateDir, order: &Order, pid: u32) -> Result<(), AgentError> {
    ask(dir, pid, Wanted::Apply(order.clone()))
}

/// Leaves `wanted` for the agent `agent`, after what others ask of it.
///
/// # Errors
/// [`AgentError::Unheard`] when it does not take theirs; a file that cannot be written.
pub(crate) fn ask(dir: &StateDir, agent: u32, wanted: Wanted) -> Result<(), AgentError> {
    let path = dir.request();
    let _in_turn =
        FileLock::wait(&path.with_extension("lock")).map_err(AgentError::lock(dir.root()))?;
    let begun = Instant::now();
    while path.exists() {
        if running_agent(dir) != Some(agent) || begun.elapsed() > OTHERS_WAIT {
            return Err(AgentError::Unheard { pid: agent });
        }
        std::thread::sleep(LOOK);
    }
    let bytes = serde_json::to_vec(&Request { format: 1, wanted })
        .map_err(io::Error::other)
        .map_err(AgentError::io("write", &path))?;
    pytheas_durable::replace(&path, &bytes).map_err(AgentError::io("write", &path))?;
    wake(agent);
    Ok(())
}

/// The agent that works in `dir` and can be asked; none when nobody works there. One that starts, and a
/// command that is done in a moment, is waited for.
pub(crate) fn agent(dir: &StateDir) -> Option<u32> {
    for _ in 0..STARTS_WITHIN.as_millis() / LOOK.as_millis() {
        let holder = running_agent(dir)?;
        if listens(holder) {
            return Some(holder);
        }
        std::thread::sleep(LOOK);
    }
    running_agent(dir)
}

/// Lets the agent `pid` look for what it is asked. Nobody else is signalled: whoever does not expect it
/// would be ended by it, such as an agent that has just begun to start.
pub(crate) fn wake(pid: u32) {
    if let Some(number) = Pid::from_raw(pid.cast_signed()).filter(|_| listens(pid)) {
        let _ended_since = kill_process(number, Signal::USR1);
    }
}

/// Whether the process `pid` handles the signal by which agents are woken (`SigCgt` of proc(5)).
fn listens(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (Signal::USR1.as_raw() - 1) & 1 == 1)
}

/// The request that lies there, if any; it is taken away.
pub(crate) fn take(dir: &StateDir) -> Option<Wanted> {
    let path = dir.request();
    let bytes = crate::paths::read(&path);
    fs::remove_file(&path).ok()?;
    let bytes = bytes.unwrap_or_default();
    let request: Option<Request> = serde_json::from_slice(&bytes).ok();
    let wanted = request.filter(|request| request.format == 1);
    if wanted.is_none() {
        tracing::warn!(
            "a request in `{}` is not understood: was it made by another version?",
            path.display()
        );
    }
    wanted.map(|request| request.wanted)
}
