//! What the log and the hub are told when the update machine moves on.

use std::time::Instant;

use pytheas_api::ddi::{Execution, Feedback, Finished, Progress};
use pytheas_update::{Job, Machine, State};
use tracing::{info, warn};

use super::{Device, MAX_PROGRESS};
use crate::history;

impl Device {
    /// Notes the end of an update, before the state that ends it is saved.
    pub(super) fn remember(&mut self, next: &Machine) {
        if let Some(mut entry) = history::ended(&self.machine, next, crate::clock::now()) {
            if let Some(why) = self.taking_over.as_ref().filter(|_| entry.action.is_none()) {
                entry.by = history::By::Agent;
                entry.reason = format!("{why}\n{}", entry.reason).trim_end().to_owned();
            }
            self.note(entry);
        }
    }

    pub(super) fn note(&mut self, entry: history::Entry) {
        self.attributes_due = true;
        if let Err(error) = history::add(&self.dir, entry) {
            warn!("cannot write `{}`: {error}", self.dir.history().display());
        }
    }

    /// The machine has moved on from `before`: say so.
    pub(super) fn moved(&mut self, before: &Machine) {
        let (was, is) = (before.state(), self.machine.state());
        if self.machine.current() != before.current()
            || self.machine.components() != before.components()
        {
            self.attributes_due = true;
        }
        if was == is {
            return;
        }
        if matches!(is, State::Idle) && std::mem::take(&mut self.asks_again) {
            (self.polled, self.poll_at) = (false, Instant::now());
        }
        self.live.held = None;
        self.effect_backoff.reset();
        self.effect_at = Instant::now();
        if was.name() != is.name() {
            let (from, to) = (was.name(), is.name());
            info!(from, to, "update: {from} → {to}");
        }
        if !matches!(is, State::Probation { .. }) {
            self.proved.clear();
        }
        let release = is.job().map(Job::title).unwrap_or_default();
        let mut told = Vec::new();
        match is {
            State::Fetching { .. } => told.push(
                Feedback::proceeding(Progress::Downloading)
                    .detail(format!("downloading {release}")),
            ),
            State::Switching { .. } => told.push(
                Feedback::proceeding(Progress::Staged)
                    .detail(format!("{release}: staged and verified")),
            ),
            State::Migrating { tries_left, .. } => told.push(
                Feedback::new(Execution::Proceeding, Finished::None).detail(format!(
                    "changing the data for {release}, {tries_left} tries left after this one"
                )),
            ),
            State::Probation {
                tries_left, last, ..
            } => {
                if !matches!(was, State::Probation { .. }) {
                    told.push(
                        Feedback::proceeding(Progress::Switched)
                            .detail(format!("switched to {release}")),
                    );
                }
                let mut feedback = Feedback::proceeding(Progress::Probation).detail(format!(
                    "starting {release}, {tries_left} tries left after this one"
                ));
                if let Some(last) = last {
                    warn!(tries_left, "{}; it is started again", last.message());
                    feedback = feedback.details(last.message().lines());
                }
                told.push(feedback);
            }
            State::RollingBack { because, .. } => {
                warn!("rolling back {release}: {}", because.message());
                told.push(
                    Feedback::new(Execution::Proceeding, Finished::None)
                        .detail(format!("rolling back {release}"))
                        .details(because.message().lines()),
                );
            }
            State::Committed { .. } => crate::hold::forget_consent(&self.dir),
            State::Idle => {
                self.tidy_due = true;
                self.taking_over = None;
            }
            _ => {}
        }
        if let State::Idle = is
            && let Some(refusal) = self.machine.refused().last()
            && before.refused().last() != Some(refusal)
        {
            let message = refusal.because.message().to_owned();
            if !matches!(was, State::RollingBack { .. }) {
                warn!("update failed: {message}");
            }
            self.failed(message);
        }
        if matches!(self.machine.state(), State::Idle) {
            self.end_order(Some(before));
        }
        if let Some(action) = self.machine.state().action().cloned() {
            let now = crate::clock::now().as_millisecond();
            for mut feedback in told {
                feedback.timestamp = Some(now);
                self.progress.push_back((action.clone(), feedback));
            }
            while self.progress.len() > MAX_PROGRESS {
                self.progress.pop_front();
            }
        }
    }
}
