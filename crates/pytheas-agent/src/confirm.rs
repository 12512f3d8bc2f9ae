//! Agreeing to an update at the device: to one that the hub wants confirmed (DDI's confirmation,
//! before anything is fetched), and to one that this device's own `install.consent` stops.
//!
//! ```text
//! status.json      what waits, as the agent last saw it (`confirm`)
//! answer.json      what somebody answered: told to the hub, then removed; lost with no answer of the
//!                  hub, it is told again, which changes nothing there
//! consent          `action 7`: what was confirmed for the hub needs no second consent
//! ```

use std::{fs, io};

use pytheas_api::ddi::{Confirmation, ConfirmationFeedback};
use pytheas_update::ActionId;
use serde::{Deserialize, Serialize};

use crate::{
    error::AgentError,
    hold,
    paths::StateDir,
    request,
    status::{Live, running_agent},
};

/// An update that the hub wants to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirming {
    /// The hub's action.
    pub action: ActionId,
    /// What it would install, as the hub says: `app@2.0.0`, several with `, ` between them.
    pub release: String,
}

/// The content of `answer.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    format: u32,
    /// The action it is about.
    pub action: ActionId,
    /// What was said.
    pub said: ConfirmationFeedback,
}

/// What [`answer`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    /// What was answered to; nothing waited when absent.
    pub release: Option<String>,
    /// The hub's action, when the hub is told.
    pub action: Option<ActionId>,
}

/// Says `said` to the update that waits.
///
/// # Errors
/// [`AgentError`]: the state cannot be read, or a file not written.
pub(crate) fn answer(
    dir: &StateDir,
    said: Confirmation,
    because: Option<&str>,
) -> Result<Answered, AgentError> {
    let Some(waits) = Live::load(&dir.status()).confirm else {
        let coming = hold::coming(dir)?;
        match (&coming, said) {
            (Some(to), Confirmation::Confirmed) => hold::agree(dir, &to.tree.to_string())?,
            (None, Confirmation::Confirmed) => {}
            (_, Confirmation::Denied) => hold::forget_consent(dir),
        }
        wake(dir);
        return Ok(Answered {
            release: coming.map(|to| to.release.to_string()),
            action: None,
        });
    };
    match said {
        Confirmation::Confirmed => hold::agree(dir, &of_action(&waits.action))?,
        Confirmation::Denied => hold::forget_consent(dir),
    }
    let answer = Answer {
        format: 1,
        action: waits.action.clone(),
        said: ConfirmationFeedback {
            confirmation: said,
            code: None,
            details: because.into_iter().map(str::to_owned).collect(),
        },
    };
    let path = dir.answer();
    let bytes = serde_json::to_vec(&answer)
        .map_err(io::Error::other)
        .map_err(AgentError::io("write", &path))?;
    pytheas_durable::replace(&path, &bytes).map_err(AgentError::io("write", &path))?;
    wake(dir);
    Ok(Answered {
        release: Some(waits.release),
        action: Some(waits.action),
    })
}

/// How `consent` names an action.
pub(crate) fn of_action(action: &ActionId) -> String {
    format!("action {action}")
}

/// What somebody answered and the hub does not know yet.
pub(crate) fn pending(dir: &StateDir) -> Option<Answer> {
    let bytes = crate::paths::read(&dir.answer()).ok()?;
    let answer: Answer = serde_json::from_slice(&bytes).ok()?;
    (answer.format == 1).then_some(answer)
}

/// The hub knows it.
pub(crate) fn told(dir: &StateDir) {
    let _told_again = fs::remove_file(dir.answer());
}

pub(crate) fn wake(dir: &StateDir) {
    if let Some(pid) = running_agent(dir) {
        request::wake(pid);
    }
}
