//! What the machine is told ([`Event`]) and what it asks for ([`Effect`]).
//!
//! An event about an update of several components names it by the tree of the first.

use pytheas_release::{Name, TreeId};
use serde::{Deserialize, Serialize};

use crate::{ActionId, Failure, Found, Job, Offer, Report};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The agent process began; what it did before may be half done.
    Restarted,
    /// The hub (or an operator at the device: no action) wants this release.
    Wanted {
        /// The hub's action.
        action: Option<ActionId>,
        /// What is offered.
        #[serde(flatten)]
        offer: Offer,
    },
    /// The hub wants an action given up.
    CancelWanted {
        /// The action.
        action: ActionId,
    },
    /// An operator at the device wants the previous release back.
    RollbackWanted,
    /// The committed release of a component is lost, for good: the one before takes over, and with
    /// it what the last update moved together with this one.
    Lost {
        /// The component.
        name: Name,
    },
    /// An operator at the device wants a component gone; the first one only when it is the last.
    RemoveWanted {
        /// The component.
        name: Name,
    },
    /// What was offered is genuine and fits.
    Checked {
        /// What was offered.
        #[serde(flatten)]
        offer: Offer,
        /// The releases, in the order in which they are to be switched to.
        found: Vec<Found>,
    },
    /// It is not, or does not.
    CheckFailed {
        /// What was offered.
        #[serde(flatten)]
        offer: Offer,
        /// Why.
        because: Failure,
    },
    /// All content is on the device.
    Fetched {
        /// The tree.
        to: TreeId,
    },
    /// The content cannot be had, and trying again would not help.
    FetchFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// The tree is put together.
    Staged {
        /// The tree.
        to: TreeId,
    },
    /// It could not be put together.
    StageFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// The tree is whole and lies in its slot.
    Verified {
        /// The tree.
        to: TreeId,
        /// Whether there is more to do than to switch.
        migrates: bool,
    },
    /// The tree is not whole.
    Damaged {
        /// The tree.
        to: TreeId,
        /// What is wrong.
        because: Failure,
    },
    /// The update may begin.
    Prepared {
        /// The tree.
        to: TreeId,
    },
    /// A hook of the new release says that it may not, or there is no room for the data's copy.
    PrepareFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// The data is set aside.
    Snapshotted {
        /// The tree.
        to: TreeId,
    },
    /// It could not be; it is as it was.
    SnapshotFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// The data is the new release's.
    Migrated {
        /// The tree.
        to: TreeId,
    },
    /// It could not be changed.
    MigrateFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// `current` leads to the new slot.
    Switched {
        /// The tree.
        to: TreeId,
    },
    /// `current` could not be moved.
    SwitchFailed {
        /// The tree.
        to: TreeId,
        /// Why.
        because: Failure,
    },
    /// The new release proved that it works.
    Healthy {
        /// The tree.
        to: TreeId,
    },
    /// It ended before that.
    Died {
        /// The tree.
        to: TreeId,
        /// `tries_left` of the start this is about.
        tries_left: u8,
        /// How it ended.
        because: Failure,
    },
    /// It did not prove in time that it works.
    NotReady {
        /// The tree.
        to: TreeId,
        /// What was waited for.
        because: Failure,
    },
    /// `current` leads to the release before, or to nothing when there was none.
    RolledBack {
        /// The tree that failed.
        from: TreeId,
    },
    /// What is no longer needed is gone.
    Tidied {
        /// The tree that is current.
        current: TreeId,
    },
    /// The hub has acknowledged a report (or no longer knows the action).
    Delivered {
        /// The report.
        report: Report,
    },
}

/// What is to be done in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Wait for the hub.
    Rest,
    /// Refresh the TUF metadata, read the release, check that it fits.
    Check {
        /// What is offered.
        offer: &'a Offer,
    },
    /// Download what is missing.
    Fetch(&'a Job),
    /// Put the tree together.
    Stage(&'a Job),
    /// Check every byte and make it a slot.
    Verify(&'a Job),
    /// Ask the new release's hooks, and whether there is room for a copy of the data.
    Prepare(&'a Job),
    /// Stop the app, set its data aside.
    Snapshot(&'a Job),
    /// Stop the app, move `current`.
    Switch(&'a Job),
    /// Let the new release's hooks change the data.
    Migrate {
        /// The update.
        job: &'a Job,
        /// Whether an earlier try may have changed some of it: put it back first.
        again: bool,
    },
    /// Start the app and judge it.
    Prove {
        /// The update.
        job: &'a Job,
        /// Starts left after this one.
        tries_left: u8,
    },
    /// Remove what is no longer needed.
    Tidy(&'a Job),
    /// Stop the app, put back what was set aside, move `current` back.
    RollBack(&'a Job),
}
