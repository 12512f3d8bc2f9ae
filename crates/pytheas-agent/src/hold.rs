//! Whether an update may go on now: maintenance windows, consent, and a hold.
//!
//! Two steps can wait: the download, and the last one before the switch (everything is staged by
//! then, and nothing that runs has been touched). A window is judged by the device's clock; by the
//! hub's when that one was never set; and counts as closed when there is neither. The first release
//! of a device waits for no install window and no consent, for there is nothing it could disturb.
//!
//! `hold` is an empty file, `consent` holds the tree that was agreed to, or `action 7`; a program with
//! a screen of its own may write either.

use std::{fs, io};

use jiff::Timestamp;
use pytheas_api::ddi::Confirmation;
use pytheas_release::TreeId;
use pytheas_update::{ActionId, Installed, Job, State};

use crate::{
    confirm,
    error::AgentError,
    paths::StateDir,
    settings::{AgentSettings, Schedule},
    status::load_machine,
};

/// What wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes of a release.
    Download,
    /// The switch to it.
    Install,
}

/// Why it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// For people.
    pub why: String,
    /// When that may change by itself.
    pub until: Option<Timestamp>,
}

/// The time that windows are judged by: ours, or the hub's when ours was never set.
pub(crate) fn time(ours: Timestamp, hubs: Option<Timestamp>) -> Option<Timestamp> {
    [Some(ours), hubs]
        .into_iter()
        .flatten()
        .find(|time| *time >= crate::clock::EARLIEST)
}

/// What `step` of `job` has to wait for; nothing when it may go on.
pub(crate) fn wait(
    dir: &StateDir,
    settings: &AgentSettings,
    step: Step,
    (job, action): (&Job, Option<&ActionId>),
    now: Option<Timestamp>,
) -> Option<Wait> {
    match step {
        Step::Download => closed("download", &settings.download.windows, now),
        Step::Install => {
            if dir.hold().exists() {
                let why = "updates are held; `pytheas-agent release` lets them go on".to_owned();
                return Some(Wait { why, until: None });
            }
            job.origins().next()?;
            if settings.install.consent && !is_agreed(dir, job.to.tree, action) {
                let release = &job.to.release;
                let why =
                    format!("`{release}` waits for consent; `pytheas-agent approve` lets it go on");
                return Some(Wait { why, until: None });
            }
            closed("install", &settings.install.windows, now)
        }
    }
}

fn closed(what: &str, windows: &Schedule, now: Option<Timestamp>) -> Option<Wait> {
    if windows.is_always() {
        return None;
    }
    let Some(now) = now else {
        let why = format!(
            "the {what} window: neither this device nor its hub knows the time, so it counts as closed"
        );
        return Some(Wait { why, until: None });
    };
    if windows.is_open(now) {
        return None;
    }
    let until = windows.opens_at(now);
    let opens = until.map_or_else(
        || "never opens".to_owned(),
        |until| {
            let local = until.to_zoned(windows.zone().clone());
            format!("opens {}", local.strftime("%a %F %H:%M %:z"))
        },
    );
    let why = format!("the {what} window {opens}");
    Some(Wait { why, until })
}

/// Whether somebody has agreed to this tree, or to all of the hub's action.
fn is_agreed(dir: &StateDir, tree: TreeId, action: Option<&ActionId>) -> bool {
    let said = crate::paths::read(&dir.consent()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    said.parse() == Ok(tree) || action.is_some_and(|action| said == confirm::of_action(action))
}

/// Keeps to what somebody has agreed.
pub(crate) fn agree(dir: &StateDir, to: &str) -> Result<(), AgentError> {
    let path = dir.consent();
    pytheas_durable::replace(&path, format!("{to}\n").as_bytes())
        .map_err(AgentError::io("write", &path))
}

/// The release that an update under way leads to, as long as it may be agreed to.
pub(crate) fn coming(dir: &StateDir) -> Result<Option<Installed>, AgentError> {
    let machine = load_machine(dir)?.unwrap_or_default();
    Ok(match machine.state() {
        State::Fetching { .. } | State::Staging { .. } | State::Verifying { .. } => {
            machine.state().job().map(|job| job.to.clone())
        }
        _ => None,
    })
}

/// The consent was used.
pub(crate) fn forget_consent(dir: &StateDir) {
    let _none_there = fs::remove_file(dir.consent());
}

/// From now on no release is switched to.
///
/// # Errors
/// [`AgentError::Io`].
pub(crate) fn hold(dir: &StateDir) -> Result<(), AgentError> {
    pytheas_durable::create_dir_all(dir.root()).map_err(AgentError::io("create", dir.root()))?;
    let path = dir.hold();
    pytheas_durable::replace(&path, b"").map_err(AgentError::io("write", &path))
}

/// What [`release`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Released {
    /// Whether updates were held.
    pub was_held: bool,
    /// The release that was agreed to.
    pub agreed_to: Option<String>,
}

/// Ends a hold, and agrees to the update that waits.
///
/// # Errors
/// [`AgentError`]: the state cannot be read, or a file not written.
pub(crate) fn release(dir: &StateDir) -> Result<Released, AgentError> {
    let answered = confirm::answer(dir, Confirmation::Confirmed, None)?;
    let path = dir.hold();
    let was_held = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(AgentError::io("remove", &path)(error)),
    };
    confirm::wake(dir);
    Ok(Released {
        was_held,
        agreed_to: answered.release,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_gives_way_to_the_hubs_and_no_clock_closes_the_window() {
        let real: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let never_set = Timestamp::from_second(1000).unwrap();
        assert_eq!(time(real, Some(never_set)), Some(real));
        assert_eq!(time(never_set, Some(real)), Some(real));
        assert_eq!(time(never_set, None), None);
        assert_eq!(time(never_set, Some(never_set)), None);

        let windows = vec!["sat 02:00-04:00".parse().unwrap()];
        let windows = Schedule::new(windows, jiff::tz::TimeZone::UTC);
        assert_eq!(closed("download", &windows, Some(real)), None);
        let later = "2026-11-21T05:00:00Z".parse().unwrap();
        let why = |now| closed("download", &windows, now).unwrap().why;
        insta::assert_snapshot!(why(Some(later)), @"the download window opens Sat 2026-11-28 02:00 +00:00");
        insta::assert_snapshot!(why(None), @"the download window: neither this device nor its hub knows the time, so it counts as closed");
    }
}
