//! Goes on with the settings that were in force last when the file has become unusable: a slip in
//! `agent.toml` must not take the app from a device that nobody stands beside.
//!
//! ```text
//! agent.toml.good    what the file said when an agent last started with it; private, for a proxy's
//!                    password may stand in it; not there when there was no file
//! ```
//! A device on which nothing is installed has no last settings: there the mistake is an error. The copy
//! may be that of a newer agent, and name settings that this one does not know: the others hold then.

use std::{fs, io};

use tracing::warn;

use super::{AgentSettings, NetworkArgs, SettingsError};
use crate::{paths::StateDir, slots, status::load_machine};

impl AgentSettings {
    /// As [`Self::resolve`], for an agent that is to run: with what was in force last when the file
    /// is unusable, and then why it is.
    ///
    /// # Errors
    /// [`SettingsError`] when nothing was in force yet.
    pub fn resolve_or_last_good(
        dir: &StateDir,
        args: &NetworkArgs,
    ) -> Result<(Self, Option<SettingsError>), SettingsError> {
        let path = Self::path(dir, args);
        let error = match Self::read(&path, args) {
            Ok((settings, text)) => {
                if let Err(error) = keep(dir, text.as_deref()) {
                    let kept = dir.settings_in_force();
                    warn!(
                        "cannot keep a copy of the settings in `{}`: {error}",
                        kept.display()
                    );
                }
                return Ok((settings.overridden(args), None));
            }
            Err(error) => error,
        };
        let runs = || matches!(load_machine(dir), Ok(Some(machine)) if machine.current().is_some());
        // Also where the state is lost, which is no reason to lose the app.
        if slots::current(dir).is_none() && !runs() {
            return Err(error);
        }
        let settings = match fs::read_to_string(dir.settings_in_force()) {
            // Paths in it are relative to where it stood.
            Ok(text) => Self::parse_known(&path, &text),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(_) => return Err(error),
        };
        Ok((settings.overridden(args), Some(error)))
    }
}

/// Keeps what the settings file says, unless it is kept already.
fn keep(dir: &StateDir, text: Option<&str>) -> io::Result<()> {
    let path = dir.settings_in_force();
    let kept = match fs::read(&path) {
        Ok(kept) => Some(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match text {
        _ if kept.as_deref() == text.map(str::as_bytes) => Ok(()),
        Some(text) => pytheas_durable::replace_private(&path, text.as_bytes()),
        None => fs::remove_file(&path),
    }
}
