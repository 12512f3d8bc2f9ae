//! Hooks: commands of a release that an agent runs around an update (`[tool.pytheas.hooks]`).
//!
//! ```json
//! {"after-update": {"command": ["bin/alembic", "upgrade", "head"], "timeout_ms": 300000}}
//! ```

use serde::{Deserialize, Serialize};

/// How long a hook may run when nothing is said, in milliseconds.
pub const HOOK_TIMEOUT_MS: u64 = 300_000;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program and its arguments. A program with a `/` lies in the release's tree; another one
    /// is a program of the device.
    pub command: Vec<String>,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
}

/// The hooks of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Hooks {
    /// Of the new release, while the old one still runs: when it fails, the update is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_update: Option<Hook>,
    /// Of the new release, with the app stopped and the data folder set aside: migrates the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_update: Option<Hook>,
    /// Of the release that is gone back to, before it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_rollback: Option<Hook>,
    /// Whether the data folder is set aside before an update to this release; absent: when there
    /// is an `after-update` hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<bool>,
}

impl Hooks {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the data folder is set aside before an update to this release.
    pub fn wants_snapshot(&self) -> bool {
        self.snapshot.unwrap_or(self.after_update.is_some())
    }

    /// Whether an update to this release has more to do than to switch.
    pub fn shape_an_update(&self) -> bool {
        self.before_update.is_some() || self.after_update.is_some() || self.wants_snapshot()
    }
}
