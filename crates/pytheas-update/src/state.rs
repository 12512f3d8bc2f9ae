//! The states of an update; each carries what its step needs.

use pytheas_release::{Name, ReleaseRef, TreeId};
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

/// What is offered: one release, or several that are to run together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The TUF target that describes the release.
    pub target: String,
    /// Those of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Whether they may be older than what runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downgrade: bool,
}

impl Offer {
    /// One release, not older than what runs.
    pub fn one(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            also: Vec::new(),
            downgrade: false,
        }
    }

    /// Every target.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.target.as_str()).chain(self.also.iter().map(String::as_str))
    }
}

/// A release that was offered, found genuine and fitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The TUF target.
    pub target: String,
    /// The release it describes.
    pub to: Installed,
}

/// The way of one component in an update of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// See [`Job::target`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// See [`Job::from`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Installed>,
    /// See [`Job::to`].
    pub to: Installed,
}

/// One update: from a release to another, of one component or of several together.
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
    /// The other components, in the order in which they are switched to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Part>,
    /// Whether there is more to do than to switch: hooks to run, data to set aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migrates: bool,
}

impl Job {
    /// The update of each component by itself, in order.
    pub fn each(&self) -> impl DoubleEndedIterator<Item = Self> + '_ {
        let first = Self {
            also: Vec::new(),
            ..self.clone()
        };
        let others = self.also.iter().map(|part| Self {
            target: part.target.clone(),
            from: part.from.clone(),
            to: part.to.clone(),
            also: Vec::new(),
            ..self.clone()
        });
        std::iter::once(first).chain(others)
    }

    /// The releases that are to run, in order.
    pub fn goals(&self) -> impl Iterator<Item = &Installed> {
        std::iter::once(&self.to).chain(self.also.iter().map(|part| &part.to))
    }

    /// The releases that run until then.
    pub fn origins(&self) -> impl Iterator<Item = &Installed> {
        let others = self.also.iter().map(|part| part.from.as_ref());
        std::iter::once(self.from.as_ref()).chain(others).flatten()
    }

    /// Names of the components it is about.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.goals().map(|goal| &goal.release.name)
    }

    /// The releases that are to run, for people: `a@1.0.0`, `b@2.0.0`.
    pub fn title(&self) -> String {
        let goals: Vec<String> = self
            .goals()
            .map(|goal| format!("`{}`", goal.release))
            .collect();
        goals.join(", ")
    }
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
        /// What is offered.
        #[serde(flatten)]
        offer: Offer,
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
    /// The new tree is checked; then it becomes a slot.
    Verifying {
        /// The update.
        job: Job,
    },
    /// Hooks of the new release look whether the update may begin, while the old one still runs.
    Preparing {
        /// The update.
        job: Job,
    },
    /// The app is stopped and its data is set aside, to be put back should the update fail.
    Snapshotting {
        /// The update.
        job: Job,
    },
    /// The app is stopped and `current` moves to the new slot.
    Switching {
        /// The update.
        job: Job,
    },
    /// Hooks of the new release change the data. `tries_left` is counted down on disk before each
    /// try; each begins with the data as it was set aside.
    Migrating {
        /// The update.
        job: Job,
        /// Tries left after this one.
        tries_left: u8,
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
            Self::Preparing { .. } => "preparing",
            Self::Snapshotting { .. } => "snapshotting",
            Self::Switching { .. } => "switching",
            Self::Migrating { .. } => "migrating",
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
            | Self::Preparing { job }
            | Self::Snapshotting { job }
            | Self::Switching { job }
            | Self::Migrating { job, .. }
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
                | Self::Preparing { .. }
        )
    }
}
