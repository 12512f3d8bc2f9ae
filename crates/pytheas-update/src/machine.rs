//! The machine: `step` turns an event into the next state, `effect` says what to do now.
//!
//! An effect may be performed any number of times; an event that does not belong to the state
//! (late, doubled, of another update) changes nothing.

use pytheas_release::TreeId;
use serde::{Deserialize, Serialize};

use crate::{
    ActionId, Failure, Installed, Job, Outcome, PROBATION_STARTS, Reason, Refusal, Report, State,
    event::{Effect, Event},
};

/// Failures remembered; the oldest goes first.
const MAX_REFUSED: usize = 16;
/// Reports waiting for the hub at which no new deployment is taken up.
const MAX_OUTBOX: usize = 16;

/// All that a device knows about its releases: the content of `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub(crate) current: Option<Installed>,
    pub(crate) previous: Option<Installed>,
    pub(crate) update: State,
    #[serde(default)]
    pub(crate) outbox: Vec<Report>,
    #[serde(default)]
    pub(crate) refused: Vec<Refusal>,
}

impl Machine {
    /// A machine that knows only which release runs: how a device recovers from a lost state.
    pub fn recovered(current: Option<Installed>) -> Self {
        Self {
            current,
            ..Self::default()
        }
    }

    /// The committed release.
    pub fn current(&self) -> Option<&Installed> {
        self.current.as_ref()
    }

    /// The release before it.
    pub fn previous(&self) -> Option<&Installed> {
        self.previous.as_ref()
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

    /// The release that should be running now: the new one from the switch on.
    pub fn live(&self) -> Option<&Installed> {
        match &self.update {
            State::Switching { job } | State::Probation { job, .. } | State::Committed { job } => {
                Some(&job.to)
            }
            State::RollingBack { job, .. } => job.from.as_ref(),
            _ => self.current(),
        }
    }

    /// The trees whose slots are needed now.
    pub fn needed(&self) -> Vec<TreeId> {
        let job = self.update.job();
        [
            self.current(),
            self.previous(),
            job.map(|job| &job.to),
            job.and_then(|j| j.from.as_ref()),
        ]
        .into_iter()
        .flatten()
        .map(|installed| installed.tree)
        .collect()
    }

    /// What is to be done now.
    pub fn effect(&self) -> Effect<'_> {
        match &self.update {
            State::Idle => Effect::Rest,
            State::Checking { target, .. } => Effect::Check { target },
            State::Fetching { job } => Effect::Fetch(job),
            State::Staging { job } => Effect::Stage(job),
            State::Verifying { job } => Effect::Verify(job),
            State::Switching { job } => Effect::Switch(job),
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
            (state, E::Wanted { action, target }) => self.wanted(state, action, target),
            (state, E::CancelWanted { action }) => self.cancel(state, action),
            (S::Idle, E::RollbackWanted) => match self.previous.clone() {
                Some(to) => {
                    let from = self.current.clone();
                    S::Verifying {
                        job: Job {
                            action: None,
                            target: None,
                            from,
                            to,
                            attempt: 0,
                        },
                    }
                }
                None => S::Idle,
            },

            (S::Checking { action, target }, E::Checked { target: of, to }) if of == target => {
                self.checked(action, target, to)
            }
            (
                S::Checking { action, target },
                E::CheckFailed {
                    target: of,
                    because,
                },
            ) if of == target => self.failed(action, None, because),

            (S::Fetching { job }, E::Fetched { to }) if to == job.to.tree => S::Staging { job },
            (S::Staging { job }, E::Staged { to }) if to == job.to.tree => S::Verifying { job },
            (S::Verifying { job }, E::Verified { to }) if to == job.to.tree => S::Switching { job },
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
                if to == job.to.tree =>
            {
                self.failed(job.action, Some(job.to), because)
            }

            (S::Switching { job }, E::Switched { to }) if to == job.to.tree => S::Probation {
                job,
                tries_left: PROBATION_STARTS - 1,
                last: None,
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
                            "the device or its agent ended while `{}` was starting",
                            job.to.release
                        ),
                    )
                });
                try_again(job, tries_left, because)
            }

            (S::RollingBack { job, because }, E::RolledBack { from }) if from == job.to.tree => {
                self.failed(job.action, Some(job.to), because)
            }
            (S::Committed { job }, E::Tidied { current }) if current == job.to.tree => S::Idle,
            (state, _) => state,
        };
        self
    }

    fn wanted(&mut self, state: State, action: Option<ActionId>, target: String) -> State {
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
        State::Checking { action, target }
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

    fn checked(&mut self, action: Option<ActionId>, target: String, to: Installed) -> State {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.tree == to.tree)
        {
            // Same files, perhaps under a new version: there is nothing to move.
            let message = format!("`{}` is running already", to.release);
            self.current = Some(to);
            self.report(action, Outcome::Succeeded { message });
            return State::Idle;
        }
        State::Fetching {
            job: Job {
                action,
                target: Some(target),
                from: self.current.clone(),
                to,
                attempt: 0,
            },
        }
    }

    fn commit(&mut self, job: Job) -> State {
        self.previous = job.from.clone();
        self.current = Some(job.to.clone());
        self.refused
            .retain(|refused| refused.tree != Some(job.to.tree));
        let message = format!("`{}` runs and is committed", job.to.release);
        self.report(job.action.clone(), Outcome::Succeeded { message });
        State::Committed { job }
    }

    fn failed(
        &mut self,
        action: Option<ActionId>,
        to: Option<Installed>,
        because: Failure,
    ) -> State {
        let (tree, release) = to.map(|to| (to.tree, to.release)).unzip();
        // A slot that failed as the way back is no way back.
        if self.previous.as_ref().map(|previous| previous.tree) == tree {
            self.previous = None;
        }
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
