//! Damage on the disk: found in idle time or when the app ends, repaired, told; when the current
//! release cannot be saved, the one before takes over.

use std::time::{Duration, Instant};

use pytheas_release::TreeId;
use pytheas_update::{Event, Installed, State};
use tracing::{error, info, warn};

use super::Device;
use crate::{
    history::{By, Entry, Outcome},
    paths::StateDir,
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
        let idle = matches!(self.machine.state(), State::Idle)
            && self.machine.installed().next().is_some();
        let regular = (!self.settings.scrub.is_zero()).then_some(self.scrub_at);
        let suspected = self.suspected.then_some(self.suspect_at);
        [regular, suspected]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| idle)
    }

    /// A current release may be damaged: it ended, or cannot be started.
    pub(super) fn suspect(&mut self) {
        self.suspected = true;
    }

    /// As [`Self::suspect`], however long ago it was suspected last.
    pub(super) fn suspect_now(&mut self) {
        self.suspected = true;
        self.suspect_at = Instant::now();
    }

    /// Every release in a slot, the current ones first.
    fn in_slots(&self) -> Vec<Installed> {
        let components = || self.machine.components().values();
        let previous = components().filter_map(|component| component.previous.as_ref());
        let all = self.machine.installed();
        all.chain(self.machine.previous())
            .chain(previous)
            .cloned()
            .collect()
    }

    /// The trees of `releases`, each with the folder of its component.
    fn homes(&self, releases: &[Installed]) -> Vec<(StateDir, TreeId)> {
        let home = |of: &Installed| (self.dir_of(&of.release.name), of.tree);
        releases.iter().map(home).collect()
    }

    /// Reads on where the pass is, or all of the current releases when they are suspected.
    pub(super) fn scrub(&mut self) {
        if self.suspected && self.suspect_at <= Instant::now() {
            self.suspected = false;
            self.suspect_at = Instant::now() + SUSPECT_AGAIN_AFTER;
            let current: Vec<Installed> = self.machine.installed().cloned().collect();
            let is_whole = |(dir, tree): &(StateDir, TreeId)| {
                matches!(slots::slot_damage(dir, *tree), Ok(None))
            };
            if !self.homes(&current).iter().all(is_whole) {
                for lost in self.repair_slots() {
                    self.take_over(&lost);
                }
            }
            return;
        }
        let interval = self.settings.scrub;
        let needed = self.homes(&self.in_slots());
        let now_ms = crate::clock::now().as_millisecond();
        let pause = match self.scrubbed.step(&self.dir, &needed, interval, now_ms) {
            Step::Whole(pause) => pause,
            Step::Done(pause) => {
                info!("every byte of {} slots is as it was written", needed.len());
                self.set_damage(None);
                pause
            }
            Step::Damaged(_) => {
                let lost = self.repair_slots();
                if lost.iter().any(|lost| !self.runs(lost)) {
                    self.suspect();
                }
                match self.live.damage.is_none() {
                    true => Duration::ZERO,
                    false => TRY_AGAIN_AFTER.min(interval),
                }
            }
        };
        self.scrub_at = Instant::now() + pause;
    }

    /// Whether the app of a release has a process now.
    fn runs(&mut self, installed: &Installed) -> bool {
        self.running_app(&installed.release.name)
            .is_some_and(|app| app.supervisor.status().pid.is_some())
    }

    /// Repairs all slots; the current releases that are still damaged.
    fn repair_slots(&mut self) -> Vec<Installed> {
        let installed = self.in_slots();
        let current: Vec<TreeId> = self.machine.installed().map(|i| i.tree).collect();
        let homes = self.homes(&installed);
        let (mut lost, mut left) = (Vec::new(), None);
        for (installed, (dir, _)) in installed.iter().zip(&homes) {
            let is_current = current.contains(&installed.tree);
            let Ok(mut transport) = self.transport() else {
                return Vec::new(); // only with an update from a file: not idle
            };
            let platform = self.identity.platform.clone();
            let repaired = scrub::repair(dir, installed, &homes, &platform, &mut transport);
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
                    let in_use = is_current
                        && scrub::is_used(&repaired.replaced, &supervisor::processes(dir));
                    let begins_anew = in_use || is_current && !self.runs(installed);
                    if let Some(app) = self
                        .running_app(&installed.release.name)
                        .filter(|_| begins_anew)
                    {
                        info!("the app is started again: it used what was damaged, or had ended");
                        app.stop();
                    }
                }
                Err(why) => {
                    error!(release = %installed.release, "cannot repair {why}");
                    self.note(entry(Outcome::Damaged, why.clone()));
                    self.failed(format!("damage on the disk: {why}"));
                    if is_current {
                        lost.push(installed.clone());
                    }
                    left.get_or_insert(why);
                }
            }
        }
        self.set_damage(left);
        lost
    }

    fn set_damage(&mut self, damage: Option<String>) {
        if self.live.damage != damage {
            self.live.damage = damage;
            self.attributes_due = true;
        }
    }

    /// A current release is lost: the one before runs in its place, if it is whole, with those
    /// that the last update moved together with it.
    fn take_over(&mut self, lost: &Installed) {
        let name = &lost.release.name;
        let back: Vec<Installed> = self
            .machine
            .way_back_of(name)
            .into_iter()
            .cloned()
            .collect();
        // An app that still runs is better than one that is to be started.
        if back.is_empty() || self.runs(lost) {
            return;
        }
        let is_whole =
            |(dir, tree): &(StateDir, TreeId)| matches!(slots::slot_damage(dir, *tree), Ok(None));
        if !self.homes(&back).iter().all(is_whole) {
            return;
        }
        let why = format!("`{}` is damaged and cannot be repaired", lost.release);
        let titles: Vec<String> = back.iter().map(|to| format!("`{}`", to.release)).collect();
        warn!("{why}; {} takes over", titles.join(", "));
        self.taking_over = Some(why);
        self.happen(Event::Lost { name: name.clone() });
    }
}
