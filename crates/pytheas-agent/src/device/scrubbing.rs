//! Damage on the disk: found in idle time or when the app ends, repaired, told; when the current
//! release cannot be saved, the one before takes over.

use std::time::{Duration, Instant};

use pytheas_update::{Event, Installed, State};
use tracing::{error, info, warn};

use super::Device;
use crate::{
    history::{By, Entry, Outcome},
    scrub::{self, Step},
    slots, supervisor,
};

/// What could not be repaired is tried again after this time at the latest.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);
/// An app that ends again and again is no reason to read its slot each time.
const SUSPECT_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

impl Device {
    /// When something is to be done here.
    pub(super) fn scrub_due(&self) -> Option<Instant> {
        let idle = matches!(self.machine.state(), State::Idle) && self.machine.current().is_some();
        let regular = (!self.settings.scrub.is_zero()).then_some(self.scrub_at);
        let suspected = self.suspected.then_some(self.suspect_at);
        [regular, suspected]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| idle)
    }

    /// The current release may be damaged: it ended, or cannot be started.
    pub(super) fn suspect(&mut self) {
        self.suspected = true;
    }

    /// As [`Self::suspect`], however long ago it was suspected last.
    pub(super) fn suspect_now(&mut self) {
        self.suspected = true;
        self.suspect_at = Instant::now();
    }

    /// Reads on where the pass is, or all of the current release when it is suspected.
    pub(super) fn scrub(&mut self) {
        let Some(current) = self.machine.current().cloned() else {
            return;
        };
        if self.suspected && self.suspect_at <= Instant::now() {
            self.suspected = false;
            self.suspect_at = Instant::now() + SUSPECT_AGAIN_AFTER;
            let whole = matches!(slots::slot_damage(&self.dir, current.tree), Ok(None));
            if !whole && !self.repair_slots() {
                self.take_over(&current);
            }
            return;
        }
        let interval = self.settings.scrub;
        let mut needed = vec![current.tree];
        needed.extend(self.machine.previous().map(|previous| previous.tree));
        let now_ms = crate::clock::now().as_millisecond();
        let pause = match self.scrubbed.step(&self.dir, &needed, interval, now_ms) {
            Step::Whole(pause) => pause,
            Step::Done(pause) => {
                info!("every byte of {} slots is as it was written", needed.len());
                self.set_damage(None);
                pause
            }
            Step::Damaged(_) if self.repair_slots() => Duration::ZERO,
            Step::Damaged(_) => {
                let current_runs = self.first.supervisor.status().pid.is_some();
                if !current_runs {
                    self.suspect();
                }
                TRY_AGAIN_AFTER.min(interval)
            }
        };
        self.scrub_at = Instant::now() + pause;
    }

    /// Repairs all slots; whether the current one is whole now.
    fn repair_slots(&mut self) -> bool {
        let installed: Vec<Installed> = [self.machine.current(), self.machine.previous()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let trees: Vec<_> = installed.iter().map(|installed| installed.tree).collect();
        let (mut current_is_whole, mut left) = (true, None);
        for (at, installed) in installed.iter().enumerate() {
            let Ok(mut transport) = self.transport() else {
                return false;
            };
            let platform = self.identity.platform.clone();
            let repaired = scrub::repair(&self.dir, installed, &trees, &platform, &mut transport);
            self.heed(&transport.guard);
            let entry = |outcome, reason| Entry {
                at_ms: crate::clock::now().as_millisecond(),
                outcome,
                by: By::Agent,
                action: None,
                from: None,
                to: Some(installed.release.clone()),
                tree: Some(installed.tree),
                target: None,
                reason,
            };
            match repaired {
                Ok(None) => {}
                Ok(Some(repaired)) => {
                    let message = format!(
                        "{} had rotted on the disk; {} replaced, {} of them fetched anew",
                        repaired.what, repaired.count, repaired.fetched
                    );
                    warn!(release = %installed.release, "`{}`: {message}", installed.release);
                    self.note(entry(Outcome::Repaired, message));
                    let in_use = at == 0
                        && scrub::is_used(&repaired.replaced, &supervisor::processes(&self.dir));
                    if in_use || self.first.supervisor.status().pid.is_none() {
                        info!("the app is started again: it used what was damaged, or had ended");
                        self.first.stop();
                    }
                }
                Err(why) => {
                    error!(release = %installed.release, "cannot repair {why}");
                    self.note(entry(Outcome::Damaged, why.clone()));
                    self.failed(format!("damage on the disk: {why}"));
                    current_is_whole &= at != 0;
                    left.get_or_insert(why);
                }
            }
        }
        self.set_damage(left);
        current_is_whole
    }

    fn set_damage(&mut self, damage: Option<String>) {
        if self.live.damage != damage {
            self.live.damage = damage;
            self.attributes_due = true;
        }
    }

    /// The current release is lost: the one before runs in its place, if it is whole.
    fn take_over(&mut self, lost: &Installed) {
        let Some(previous) = self.machine.previous().cloned() else {
            return;
        };
        // An app that still runs is better than one that is to be started.
        if self.first.supervisor.status().pid.is_some() {
            return;
        }
        if !matches!(slots::slot_damage(&self.dir, previous.tree), Ok(None)) {
            return;
        }
        let why = format!("`{}` is damaged and cannot be repaired", lost.release);
        warn!("{why}; `{}` takes over", previous.release);
        self.taking_over = Some(why);
        self.happen(Event::RollbackWanted);
    }
}
