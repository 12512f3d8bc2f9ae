//! Takes a component off the device: its app is stopped, its releases are deleted, its data stays
//! unless it is to go, too.
//!
//! ```text
//! components/NAME/removing      "data app@1.0" or "keep app@1.0": what is to become of the data, and
//!                               what ran (the first app: in the state directory itself)
//! ```
//! The mark is on the disk before the machine forgets the component, and goes last; a mark whose
//! component the machine still has means that nothing was begun, and is forgotten.

use std::{fs, io, path::PathBuf};

use pytheas_durable::{FileLock, faults};
use pytheas_release::Name;
use pytheas_update::{AGENT, Event, Machine, State};

use crate::{
    error::AgentError,
    history,
    paths::StateDir,
    request::{self, Wanted},
    slots,
    status::load_machine,
    supervisor,
};

/// What becomes of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Data {
    /// It stays, for when the app comes back.
    Keep,
    /// It goes.
    Delete,
}

/// Why a component stays.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RemoveError {
    /// There is no such component.
    #[error("`{name}` is not installed here")]
    #[diagnostic(help("{have}"))]
    NotInstalled {
        /// What was asked for.
        name: Name,
        /// What there is.
        have: String,
    },
    /// It is the agent.
    #[error("`pytheas-agent` is the agent itself")]
    #[diagnostic(help("`pytheas-agent rollback` leads to the one before"))]
    Agent,
    /// The first app, and there are others.
    #[error("`{name}` was installed first, and the other apps lie in its directory")]
    #[diagnostic(help("remove the others first: {others}"))]
    First {
        /// The first app.
        name: Name,
        /// The others.
        others: String,
    },
    /// Another app needs it.
    #[error("`{by}` requires `{name}`")]
    #[diagnostic(help("remove `{by}` first, or roll out a release of it that does without"))]
    Required {
        /// What was to be removed.
        name: Name,
        /// What needs it.
        by: String,
    },
}

/// What [`remove`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The release that ran.
    pub release: String,
    /// Where its data is, when it was kept and there is some.
    pub data: Option<PathBuf>,
    /// Whether all is done; else an agent is still at it.
    pub done: bool,
}

/// Whether `name` may be removed now.
///
/// # Errors
/// [`RemoveError`], [`AgentError::Busy`].
pub(crate) fn possible(dir: &StateDir, machine: &Machine, name: &Name) -> Result<(), AgentError> {
    let names = || machine.installed().map(|i| i.release.name.as_str());
    if name.as_str() == AGENT {
        return Err(RemoveError::Agent.into());
    }
    if machine.installed_as(name).is_none() {
        let have = match names().count() {
            0 => "no app is installed in this state folder; `--state` names another".to_owned(),
            _ => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        let name = name.clone();
        return Err(RemoveError::NotInstalled { name, have }.into());
    }
    if !matches!(machine.state(), State::Idle) {
        let state = machine.state().name().to_owned();
        return Err(AgentError::Busy { state });
    }
    for other in machine.installed().filter(|i| i.release.name != *name) {
        let place = dir_of(dir, machine, &other.release.name);
        // One that cannot be read is no reason: it is the scrub's.
        let Ok(record) = slots::record(&place, other.tree) else {
            continue;
        };
        if record.update.rules.requires.contains_key(name.as_str()) {
            let (name, by) = (name.clone(), other.release.to_string());
            return Err(RemoveError::Required { name, by }.into());
        }
    }
    let others: Vec<&str> = names()
        .filter(|other| *other != name.as_str() && *other != AGENT)
        .collect();
    if machine.first_name() == Some(name) && !others.is_empty() {
        let (name, others) = (name.clone(), others.join(", "));
        return Err(RemoveError::First { name, others }.into());
    }
    Ok(())
}

fn dir_of(dir: &StateDir, machine: &Machine, name: &Name) -> StateDir {
    match machine.first_name() == Some(name) {
        true => dir.clone(),
        false => dir.component(name),
    }
}

/// Marks `name` as to be removed, so that [`finish`] knows after a power cut.
///
/// # Errors
/// The mark cannot be written.
pub(crate) fn mark(
    dir: &StateDir,
    machine: &Machine,
    name: &Name,
    data: Data,
) -> Result<(), AgentError> {
    let path = dir_of(dir, machine, name).removing();
    let word = match data {
        Data::Keep => "keep",
        Data::Delete => "data",
    };
    let release = machine.installed_as(name).map(|i| i.release.to_string());
    let text = format!("{word} {}\n", release.unwrap_or_default());
    pytheas_durable::replace(&path, text.as_bytes()).map_err(AgentError::io("write", &path))
}

/// Finishes every removal that was begun; the apps in question must not be started meanwhile.
///
/// # Errors
/// What cannot be deleted: to be tried again.
pub(crate) fn finish(dir: &StateDir, machine: &Machine) -> io::Result<()> {
    let further = dir.components();
    let further = further.iter().map(|name| dir.component(name));
    for place in std::iter::once(dir.clone()).chain(further) {
        let Ok(mark) = fs::read(place.removing()) else {
            continue;
        };
        let is_first = place.root() == dir.root();
        let stays = match is_first {
            true => machine.current().is_some(),
            false => machine
                .components()
                .keys()
                .any(|name| dir.component(name).root() == place.root()),
        };
        if !stays && matches!(machine.state(), State::Idle) {
            take_away(&place, is_first, &mark)?;
            tell(dir, &mark);
        }
        faults::point("agent:remove:mark");
        fs::remove_file(place.removing())?;
        if !is_first {
            // Gone when nothing was kept in it.
            let _holds_data = fs::remove_dir(place.root());
        }
    }
    Ok(())
}

/// Puts it into the history; once, however often a power cut makes it be finished.
fn tell(dir: &StateDir, mark: &[u8]) {
    let mark = String::from_utf8_lossy(mark);
    // A mark of an older agent does not say what it was.
    let Some((word, release)) = mark.trim().split_once(' ') else {
        return;
    };
    let Ok(release) = release.parse() else { return };
    let entry = history::removed(release, word == "data", crate::clock::now());
    if let Err(error) = history::add(dir, entry) {
        tracing::warn!("the removal is not in the history: {error}");
    }
}

fn take_away(place: &StateDir, is_first: bool, mark: &[u8]) -> io::Result<()> {
    supervisor::end_left_over(place);
    faults::point("agent:remove:stopped");
    // From here on it is nobody's, whatever becomes of `state.json`.
    slots::point_current(place, None).map_err(io::Error::other)?;
    faults::point("agent:remove:current");
    slots::tidy(place, &[]).map_err(io::Error::other)?;
    faults::point("agent:remove:slots");
    let mut gone = vec![place.snapshot(), place.snapshot_part(), place.data_part()];
    if !is_first {
        gone.extend([
            place.slots(),
            place.staging(),
            place.downloads(),
            place.images(),
        ]);
        gone.extend([place.hook_pid(), place.app_pid(), place.logs()]);
    }
    if mark.starts_with(b"data") {
        gone.extend([place.data(), place.data_failed()]);
    }
    for path in gone {
        pytheas_durable::remove_tree(&path)?;
    }
    Ok(())
}

/// Takes `name` off the device: at once when no agent runs, else by the one that does.
///
/// # Errors
/// [`RemoveError`], [`AgentError::Busy`], or a file that cannot be written.
pub(crate) fn remove(dir: &StateDir, name: &Name, data: Data) -> Result<Removed, AgentError> {
    let machine = load_machine(dir)?.unwrap_or_default();
    possible(dir, &machine, name)?;
    let release = machine.installed_as(name).map(|i| i.release.to_string());
    let release = release.unwrap_or_default();
    let place = dir_of(dir, &machine, name);
    let done = match request::agent(dir) {
        Some(agent) => {
            let wanted = Wanted::Remove {
                name: name.clone(),
                data,
            };
            request::ask(dir, agent, wanted)?;
            // Until it is done, up to the longest request the agent may be waiting for.
            (0..800).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(25));
                let machine = load_machine(dir).ok().flatten().unwrap_or_default();
                !dir.request().exists()
                    && machine.installed_as(name).is_none()
                    && !place.removing().exists()
            })
        }
        None => {
            let _lock = FileLock::acquire(&dir.lock()).map_err(AgentError::lock(dir.root()))?;
            // An agent may have worked since.
            let machine = load_machine(dir)?.unwrap_or_default();
            possible(dir, &machine, name)?;
            mark(dir, &machine, name, data)?;
            let name = name.clone();
            let next = machine.step(Event::RemoveWanted { name });
            let path = dir.state();
            pytheas_durable::replace(&path, &next.encode())
                .map_err(AgentError::io("write", &path))?;
            finish(dir, &next).map_err(AgentError::io("remove", place.root()))?;
            true
        }
    };
    let kept = Some(place.data()).filter(|path| data == Data::Keep && path.exists());
    Ok(Removed {
        release,
        data: kept,
        done,
    })
}
