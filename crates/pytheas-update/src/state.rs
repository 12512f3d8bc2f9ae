//! The states of an update; each carries what its step needs.

use pytheas_release::{ReleaseRef, TreeId};
use serde::{Deserialize, Serialize};

use crate::{ActionId, Failure};

/// How often a release may be started until it has proved that it works.
pub const PROBATION_STARTS: u8 = 3;

/// A release whose tree lies verified in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The tree, and the slot's name.
    pub tree: TreeId,
    /// The release it belongs to.
    pub release: ReleaseRef,
}

/// One update: from a release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The hub's action; none when an operator at the device asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionId>,
    /// The TUF target that describes the release; none when it is already in a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The release that runs; none at the first install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Installed>,
    /// The release that is to run.
    pub to: Installed,
    /// 0 at first; 1 when the staged tree was damaged and everything doubtful is fetched anew.
    #[serde(default)]
    pub attempt: u8,
}

/// Where an update stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing to do.
    #[default]
    Idle,
    /// Is what the hub offers genuine, made for this device, and is there room for it?
    Checking {
        /// The hub's action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        action: Option<ActionId>,
        /// The TUF target.
        target: String,
    },
    /// The content that the device does not have is downloaded.
    Fetching {
        /// The update.
        job: Job,
    },
    /// The new tree is put together beside the running one.
    Staging {
        /// The update.
        job: Job,
    },
    /// Every byte of the new tree is checked; then it becomes a slot.
    Verifying {
        /// The update.
        job: Job,
    },
    /// The app is stopped and `current` moves to the new slot.
    Switching {
        /// The update.
        job: Job,
    },
    /// The new release runs and has to prove that it works. `tries_left` is counted down on disk
    /// before each start, so a release that takes the device down is given up without any clock.
    Probation {
        /// The update.
        job: Job,
        /// Starts left after this one.
        tries_left: u8,
        /// Why the start before this one failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<Failure>,
    },
    /// The new release is the current one; what is no longer needed goes.
    Committed {
        /// The update.
        job: Job,
    },
    /// `current` moves back to the release that ran before.
    RollingBack {
        /// The update.
        job: Job,
        /// Why it failed.
        because: Failure,
    },
}

impl State {
    /// The state's name as it is stored.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking { .. } => "checking",
            Self::Fetching { .. } => "fetching",
            Self::Staging { .. } => "staging",
            Self::Verifying { .. } => "verifying",
            Self::Switching { .. } => "switching",
            Self::Probation { .. } => "probation",
            Self::Committed { .. } => "committed",
            Self::RollingBack { .. } => "rolling-back",
        }
    }

    /// The action that is being worked on.
    pub fn action(&self) -> Option<&ActionId> {
        match self {
            Self::Idle => None,
            Self::Checking { action, .. } => action.as_ref(),
            state => state.job().and_then(|job| job.action.as_ref()),
        }
    }

    /// The update, once it is known what it leads to.
    pub fn job(&self) -> Option<&Job> {
        match self {
            Self::Idle | Self::Checking { .. } => None,
            Self::Fetching { job }
            | Self::Staging { job }
            | Self::Verifying { job }
            | Self::Switching { job }
            | Self::Probation { job, .. }
            | Self::Committed { job }
            | Self::RollingBack { job, .. } => Some(job),
        }
    }

    /// Whether the running release is still untouched, so that the update can be given up.
    pub fn can_be_given_up(&self) -> bool {
        matches!(
            self,
            Self::Checking { .. }
                | Self::Fetching { .. }
                | Self::Staging { .. }
                | Self::Verifying { .. }
        )
    }
}
