//! Where a rollout, its groups and its devices stand: what is written down and counted.

use serde::{Deserialize, Serialize};

use crate::{PlanError, Reason};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Made, not begun.
    Created,
    /// Devices of the opened groups update.
    Running,
    /// Nothing new starts; what was begun goes on.
    Paused {
        /// Why.
        because: Reason,
    },
    /// Every device ended.
    Finished,
    /// Taken back.
    Aborted {
        /// Why.
        because: Reason,
    },
}

impl State {
    /// Whether nothing follows it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished | Self::Aborted { .. })
    }

    /// Why it does not go on, for people.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Paused { because } | Self::Aborted { because } => Some(because.to_string()),
            Self::Created | Self::Running | Self::Finished => None,
        }
    }
}

/// Where one device of a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// Its group is not open.
    Waiting,
    /// It was told.
    Active {
        /// When it was told, or last reported on it.
        heard_ms: u64,
    },
    /// It runs the release.
    Succeeded,
    /// It does not.
    Failed,
    /// It was taken out.
    Cancelled,
}

impl Standing {
    /// Whether nothing follows it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// One device of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<D> {
    /// Which.
    pub device: D,
    /// Where it stands.
    pub standing: Standing,
}

/// Where the rollout as a whole stands; with the plan and the members all there is to restore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// So many groups are open, from the first.
    pub opened: usize,
    /// Failures that a person accepted by resuming, by group.
    pub accepted: Vec<u32>,
    /// So many groups, from the first on, need no success any more: a person went on from there.
    #[serde(default)]
    pub waived: usize,
}

/// Counts of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices in it.
    pub total: u32,
    /// Not started.
    pub waiting: u32,
    /// Started, not ended.
    pub active: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
    /// Taken out.
    pub cancelled: u32,
}

impl Tally {
    pub(crate) fn slot(&mut self, standing: &Standing) -> &mut u32 {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Active { .. } => &mut self.active,
            Standing::Succeeded => &mut self.succeeded,
            Standing::Failed => &mut self.failed,
            Standing::Cancelled => &mut self.cancelled,
        }
    }

    /// Whether every device in it ended.
    pub fn is_done(&self) -> bool {
        self.waiting == 0 && self.active == 0
    }
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStatus {
    /// An earlier group has to succeed first.
    Waiting,
    /// Its devices update.
    Open,
    /// All its devices ended.
    Done,
}

/// What was written down does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The plan is not one.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Counts differ.
    #[error(
        "a rollout of {groups} groups was stored with {opened} open and {accepted} accepted counts"
    )]
    Groups {
        /// Groups of the plan.
        groups: usize,
        /// Groups stored as open.
        opened: usize,
        /// Accepted counts stored.
        accepted: usize,
    },
    /// A member of a closed group is active.
    #[error("a device of group {group} is active, but the group is not open")]
    ActiveTooEarly {
        /// Counted from 0.
        group: usize,
    },
}
