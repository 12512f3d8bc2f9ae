//! The machine: `step` turns an event into the next state, `effect` says what to do now.
//!
//! An effect may be performed any number of times; an event that does not belong to the state
//! (late, doubled, of another update) changes nothing.

use std::collections::BTreeMap;

use pytheas_release::Name;
use serde::{Deserialize, Serialize};

use crate::{
    ActionId, Failure, Found, Installed, Job, Offer, Outcome, PROBATION_STARTS, Part, Reason,
    Refusal, Report, State,
    components::Component,
    event::{Effect, Event},
};

/// Failures remembered; the oldest goes first.
const MAX_REFUSED: usize = 16;
/// Reports waiting for the hub at which no new deployment is taken up.
const MAX_OUTBOX: usize = 16;

/// All that a device knows about its releases: the content of `state.json`.
///
/// The app that was installed first is `current`; further ones are `components`. An app is known
/// again by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub(crate) current: Option<Installed>,
    pub(crate) previous: Option<Installed>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) components: BTreeMap<Name, Component>,
    /// What the last update moved, when it moved several: they go back together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) together: Vec<Name>,
    pub(crate) update: State,
    #[serde(default)]
    pub(crate) outbox: Vec<Report>,
    #[serde(default)]
    pub(crate) refused: Vec<Refusal>,
}

impl Machine {
    /// A machine that knows only which releases run: how a device recovers from a lost state.
    ///
    /// With a release `before` the current one, nobody knows whether an update was under way between
    /// them: the current one proves once more that it works, or the one before comes back.
    pub fn recovered(
        current: Option<Installed>,
        before: Option<Installed>,
        others: Vec<Installed>,
    ) -> Self {
        let component = |current: Installed| {
            let name = current.release.name.clone();
            (
                name,
                Component {
                    current,
                    previous: None,
                },
            )
        };
        let mut machine = Self {
            current,
            components: others.into_iter().map(component).collect(),
            ..Self::default()
        };
        if let Some(from) = before
            && let Some(to) = machine.current.replace(from.clone())
        {
            machine.update = on_probation(Job {
                action: None,
                target: None,
                from: Some(from),
                to,
                attempt: 0,
                also: Vec::new(),
                migrates: false,
            });
        }
        machine
    }

    /// Where the update stands.
    pub fn state(&self) -> &State {
        &self.update
    }

    /// Reports the hub has not acknowledged yet, oldest first.
    pub fn outbox(&self) -> &[Report] {
        &self.outbox
    }

    /// Deployments that failed here, oldest first.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// What is to be done now.
    pub fn effect(&self) -> Effect<'_> {
        match &self.update {
            State::Idle => Effect::Rest,
            State::Checking { offer, .. } => Effect::Check { offer },
            State::Fetching { job } => Effect::Fetch(job),
            State::Staging { job } => Effect::Stage(job),
            State::Verifying { job } => Effect::Verify(job),
            State::Preparing { job } => Effect::Prepare(job),
            State::Snapshotting { job } => Effect::Snapshot(job),
            State::Switching { job } => Effect::Switch(job),
            State::Migrating { job, tries_left } => Effect::Migrate {
                job,
                again: *tries_left + 1 < PROBATION_STARTS,
            },
            State::Probation {
                job, tries_left, ..
            } => Effect::Prove {
                job,
                tries_left: *tries_left,
            },
            State::Committed { job } => Effect::Tidy(job),
            State::RollingBack { job, .. } => Effect::RollBack(job),
        }
    }

    /// The machine after `event`; the same one when the event does not belong to its state.
    #[must_use]
    pub fn step(mut self, event: Event) -> Self {
        use Event as E;
        use State as S;
        self.update = match (std::mem::take(&mut self.update), event) {
            (state, E::Delivered { report }) => {
                if let Some(at) = self.outbox.iter().position(|waiting| *waiting == report) {
                    self.outbox.remove(at);
                }
                state
            }
            (state, E::Wanted { action, offer }) => self.wanted(state, action, offer),
            (state, E::CancelWanted { action }) => self.cancel(state, action),
            (S::Idle, E::RollbackWanted) => self.back_to(self.way_back()),
            (S::Idle, E::RemoveWanted { name }) => {
                self.remove(&name);
                S::Idle
            }
            (S::Idle, E::Lost { name }) => self.back_to(self.way_back_of(&name)),

            (S::Checking { action, offer }, E::Checked { offer: of, found }) if of == offer => {
                self.checked(action, found)
            }
            (S::Checking { action, offer }, E::CheckFailed { offer: of, because })
                if of == offer =>
            {
                self.failed(action, None, because)
            }

            (S::Fetching { job }, E::Fetched { to }) if to == job.to.tree => S::Staging { job },
            (S::Staging { job }, E::Staged { to }) if to == job.to.tree => S::Verifying { job },
            (S::Verifying { job }, E::Verified { to, migrates }) if to == job.to.tree => {
                let job = Job { migrates, ..job };
                match migrates {
                    true => S::Preparing { job },
                    false => S::Switching { job },
                }
            }
            (S::Preparing { job }, E::Prepared { to }) if to == job.to.tree => {
                S::Snapshotting { job }
            }
            (S::Snapshotting { job }, E::Snapshotted { to }) if to == job.to.tree => {
                S::Switching { job }
            }
            // Damage is fetched anew once; a second time it is no accident. A slot that an
            // operator wants back cannot be fetched: nobody said which target it came from.
            (S::Verifying { job }, E::Damaged { to, .. })
                if to == job.to.tree && job.attempt == 0 && job.target.is_some() =>
            {
                S::Fetching {
                    job: Job { attempt: 1, ..job },
                }
            }
            (S::Fetching { job }, E::FetchFailed { to, because })
            | (S::Staging { job }, E::StageFailed { to, because })
            | (S::Verifying { job }, E::Damaged { to, because })
            | (S::Preparing { job }, E::PrepareFailed { to, because })
            | (S::Snapshotting { job }, E::SnapshotFailed { to, because })
                if to == job.to.tree =>
            {
                let action = job.action.clone();
                self.failed(action, Some(job), because)
            }

            (S::Switching { job }, E::Switched { to }) if to == job.to.tree => match job.migrates {
                true => S::Migrating {
                    job,
                    tries_left: PROBATION_STARTS - 1,
                },
                false => on_probation(job),
            },
            (S::Migrating { job, .. }, E::Migrated { to }) if to == job.to.tree => {
                on_probation(job)
            }
            (S::Migrating { job, .. }, E::MigrateFailed { to, because }) if to == job.to.tree => {
                S::RollingBack { job, because }
            }
            // As with a start on probation: a migration that takes the device down is given up.
            (S::Migrating { job, tries_left }, E::Restarted) => match tries_left.checked_sub(1) {
                Some(tries_left) => S::Migrating { job, tries_left },
                None => {
                    let message = format!(
                        "the device or its agent ended while {} changed the data",
                        job.title()
                    );
                    let because = Failure::new(Reason::Hook, message);
                    S::RollingBack { job, because }
                }
            },
            (S::Switching { job }, E::SwitchFailed { to, because }) if to == job.to.tree => {
                S::RollingBack { job, because }
            }

            (S::Probation { job, .. }, E::Healthy { to }) if to == job.to.tree => self.commit(job),
            (S::Probation { job, .. }, E::NotReady { to, because }) if to == job.to.tree => {
                S::RollingBack { job, because }
            }
            (
                S::Probation {
                    job, tries_left, ..
                },
                E::Died {
                    to,
                    tries_left: of,
                    because,
                },
            ) if to == job.to.tree && of == tries_left => try_again(job, tries_left, because),
            // Nobody saw how that start ended; it counts, or a release that takes the device
            // down with it would be started for ever.
            (
                S::Probation {
                    job,
                    tries_left,
                    last,
                },
                E::Restarted,
            ) => {
                let because = last.unwrap_or_else(|| {
                    Failure::new(
                        Reason::Died,
                        format!(
                            "the device or its agent ended while {} was starting",
                            job.title()
                        ),
                    )
                });
                try_again(job, tries_left, because)
            }

            (S::RollingBack { job, because }, E::RolledBack { from }) if from == job.to.tree => {
                let action = job.action.clone();
                self.failed(action, Some(job), because)
            }
            (S::Committed { job }, E::Tidied { current }) if current == job.to.tree => S::Idle,
            (state, _) => state,
        };
        self
    }

    fn wanted(&mut self, state: State, action: Option<ActionId>, offer: Offer) -> State {
        // Known already: being worked on, or its end not yet told.
        if action.is_some() && state.action() == action.as_ref()
            || action
                .as_ref()
                .is_some_and(|action| self.waits_to_be_told(action))
        {
            return state;
        }
        if let Some(refusal) = self
            .refused
            .iter()
            .find(|refused| action.is_some() && refused.action == action)
        {
            let because = refusal.because.clone();
            self.report(action, Outcome::Failed { because });
            return state;
        }
        let free = match &state {
            State::Idle => true,
            // Only the hub may put one of its own actions in the place of another.
            busy => busy.can_be_given_up() && busy.action().is_some() && action.is_some(),
        };
        if !free || self.outbox.len() >= MAX_OUTBOX {
            return state;
        }
        if let Some(old) = state.action() {
            let because = Failure::new(Reason::Superseded, "another deployment took its place");
            self.report(Some(old.clone()), Outcome::Failed { because });
        }
        State::Checking { action, offer }
    }

    fn cancel(&mut self, state: State, action: ActionId) -> State {
        let cancelled = Report {
            action: action.clone(),
            outcome: Outcome::Cancelled,
        };
        if self.outbox.contains(&cancelled) {
            return state;
        }
        let working = state.action() == Some(&action);
        if working && !state.can_be_given_up() || self.waits_to_be_told(&action) {
            self.report(Some(action), Outcome::CancelRejected);
            return state;
        }
        if !working && self.outbox.len() >= MAX_OUTBOX {
            return state; // the hub asks again once it has heard what waits
        }
        self.report(Some(action), Outcome::Cancelled);
        if working { State::Idle } else { state }
    }

    fn checked(&mut self, action: Option<ActionId>, found: Vec<Found>) -> State {
        let mut parts = Vec::new();
        let mut running = Vec::new();
        for Found { target, to } in found {
            let from = self.installed_as(&to.release.name).cloned();
            if from.as_ref().is_some_and(|from| from.tree == to.tree) {
                // Same files, perhaps under a new version: there is nothing to move.
                running.push(format!("`{}`", to.release));
                self.set_current(to);
            } else {
                let target = Some(target);
                parts.push(Part { target, from, to });
            }
        }
        if parts.is_empty() {
            let verb = if running.len() == 1 { "is" } else { "are" };
            let message = format!("{} {verb} running already", running.join(", "));
            self.report(action, Outcome::Succeeded { message });
            return State::Idle;
        }
        let Part { target, from, to } = parts.remove(0);
        State::Fetching {
            job: Job {
                action,
                target,
                from,
                to,
                attempt: 0,
                also: parts,
                migrates: false,
            },
        }
    }

    fn back_to(&self, way: Vec<&Installed>) -> State {
        let from = |to: &Installed| self.installed_as(&to.release.name).cloned();
        let mut parts = way.into_iter().map(|to| Part {
            target: None,
            from: from(to),
            to: to.clone(),
        });
        let Some(Part { target, from, to }) = parts.next() else {
            return State::Idle;
        };
        State::Verifying {
            job: Job {
                action: None,
                target,
                from,
                to,
                attempt: 0,
                also: parts.collect(),
                migrates: false,
            },
        }
    }

    fn commit(&mut self, job: Job) -> State {
        let parts: Vec<Job> = job.each().collect();
        for part in &parts {
            self.set_current(part.to.clone());
            if let Some(previous) = self.previous_of(&part.to.release.name) {
                previous.clone_from(&part.from);
            }
        }
        // The first component alone is what goes back when nothing is noted.
        let names: Vec<Name> = job.names().cloned().collect();
        let first = self.current.as_ref().map(|current| &current.release.name);
        self.together = match names.as_slice() {
            [name] if Some(name) == first => Vec::new(),
            _ => names,
        };
        self.refused
            .retain(|refused| parts.iter().all(|part| refused.tree != Some(part.to.tree)));
        let (verb, is) = match parts.len() {
            1 => ("runs", "is"),
            _ => ("run", "are"),
        };
        let message = format!("{} {verb} and {is} committed", job.title());
        self.report(job.action.clone(), Outcome::Succeeded { message });
        State::Committed { job }
    }

    fn failed(&mut self, action: Option<ActionId>, job: Option<Job>, because: Failure) -> State {
        // A slot that failed as the way back is no way back.
        for goal in job.iter().flat_map(Job::goals) {
            if let Some(previous) = self.previous_of(&goal.release.name)
                && previous
                    .as_ref()
                    .is_some_and(|previous| previous.tree == goal.tree)
            {
                *previous = None;
            }
        }
        let (tree, release) = job.map(|job| (job.to.tree, job.to.release)).unzip();
        self.refused.push(Refusal {
            action: action.clone(),
            tree,
            release,
            because: because.clone(),
        });
        let surplus = self.refused.len().saturating_sub(MAX_REFUSED);
        self.refused.drain(..surplus);
        self.report(action, Outcome::Failed { because });
        State::Idle
    }

    /// Whether the end of `action` is still to be told.
    fn waits_to_be_told(&self, action: &ActionId) -> bool {
        self.outbox.iter().any(|report| {
            report.action == *action && !matches!(report.outcome, Outcome::CancelRejected)
        })
    }

    fn report(&mut self, action: Option<ActionId>, outcome: Outcome) {
        let Some(action) = action else { return };
        let report = Report { action, outcome };
        if !self.outbox.contains(&report) {
            self.outbox.push(report);
        }
    }
}

fn on_probation(job: Job) -> State {
    State::Probation {
        job,
        tries_left: PROBATION_STARTS - 1,
        last: None,
    }
}

fn try_again(job: Job, tries_left: u8, because: Failure) -> State {
    match tries_left.checked_sub(1) {
        Some(tries_left) => State::Probation {
            job,
            tries_left,
            last: Some(because),
        },
        None => State::RollingBack { job, because },
    }
}
