//! The effects of the update machine: each may be repeated after a power cut at any point of it.

use std::{
    fs,
    rc::Rc,
    sync::Arc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pytheas_durable::faults;
use pytheas_release::{
    Tree, TreeId,
    compat::{Downgrades, Facts},
};
use pytheas_update::{Effect, Event, Failure, Job, Offer, Reason};
use tracing::{debug, warn};

use super::{Device, DowngradePolicy};
use crate::{
    backoff::spread,
    boards::fetched,
    check::Judge,
    content, data,
    failure::{Trouble, device_failure, slot_failure},
    interrupt::{Guard, Guarded},
    offline::{self, Source},
    paths::StateDir,
    peers::Peers,
    slots,
    supervisor::end_hooks,
    written::Written,
};

/// How soon an update looks whether the trial of settings has ended.
const AFTER_CONFIG: Duration = Duration::from_millis(500);

impl Device {
    /// Performs the machine's effect once and takes in what comes of it.
    pub(super) fn perform(&mut self) {
        debug!(state = self.machine.state().name(), "performing");
        if self.is_held() {
            return;
        }
        if self.config_on_trial() && self.is_urgent() {
            self.abandon_config(); // an operator goes back, or what runs is lost
        } else if self.config_on_trial() {
            // One thing at a time, so that it is known what broke an app.
            self.effect_at = Instant::now() + AFTER_CONFIG;
            return;
        }
        faults::point("agent:effect:before");
        let machine = self.machine.clone();
        let result = match machine.effect() {
            Effect::Rest | Effect::Prove { .. } => return,
            Effect::Check { offer } => self.check(offer),
            Effect::Fetch(job) => self.fetch(job),
            Effect::Stage(job) => self.stage(job),
            Effect::Verify(job) => self.verify(job),
            Effect::Prepare(job) => self.prepare(job),
            Effect::Snapshot(job) => self.snapshot(job),
            Effect::Switch(job) => self.switch(job),
            Effect::Migrate { job, again } => self.migrate(job, again),
            Effect::Tidy(job) => self.tidy_after(job),
            Effect::RollBack(job) => self.roll_back(job),
        };
        faults::point("agent:effect:after");
        match result {
            Ok(event) => self.happen(event),
            Err(_) if self.is_held() => {} // the window closed over it
            Err(message) => {
                let asked = self.http.not_before();
                let asked = asked.map(|moment| moment.saturating_duration_since(Instant::now()));
                let pause = self
                    .effect_backoff
                    .next()
                    .max(spread(asked.unwrap_or_default()));
                if !self.waker.stop.load(Ordering::Relaxed) {
                    warn!(
                        pause_ms = pause.as_millis() as u64,
                        "{}: {message}",
                        machine.state().name()
                    );
                    self.failed(message);
                }
                self.effect_at = Instant::now() + pause;
            }
        }
    }

    /// Where the content of the update at hand comes from.
    pub(super) fn transport(&self) -> Result<Guarded<Source>, Trouble> {
        let token = self.identity.token.as_deref();
        let offline = offline::is_under_way(&self.machine);
        let guard = Guard::new(
            Arc::clone(&self.waker.stop),
            // What an operator ordered is not the hub's to take back.
            self.hub.clone().filter(|_| !offline),
            self.machine.state().action().cloned(),
            self.interval,
            self.poll_at,
            if offline {
                Box::new(|| true)
            } else {
                Box::new(self.download_window())
            },
        );
        let inner = if offline {
            Source::of(self.order.as_ref())?
        } else if self.detached {
            Source::without_hub(&self.dir)
        } else {
            Source::Hub(self.http.repository(&self.identity.device_id, token))
        };
        Ok(Guarded { inner, guard })
    }

    /// Does `work` with it. Trouble with a file is final, unless the agent itself broke off.
    fn with_transport<T>(
        &mut self,
        work: impl FnOnce(&StateDir, &mut Guarded<Source>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut transport = self.transport()?;
        let result = work(&self.dir, &mut transport);
        self.heed(&transport.guard);
        match result {
            Err(trouble) if transport.inner.is_file() && !transport.guard.broken_off.get() => {
                Err(offline::settled(trouble))
            }
            other => other,
        }
    }

    /// After a download: what the guard has learnt about polling.
    pub(super) fn heed(&mut self, guard: &Guard) {
        self.poll_at = if guard.broken_off.get() {
            Instant::now()
        } else {
            guard.poll_at.get()
        };
    }

    fn check(&mut self, offer: &Offer) -> Result<Event, String> {
        let facts = Facts {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.clone(),
            platform: self.identity.platform.clone(),
        };
        let machine = self.machine.clone();
        let boards = self.boards.apps(&self.settings.agent.boards);
        let downgrades = match (self.settings.downgrades, offer.downgrade) {
            (DowngradePolicy::Always, _) | (DowngradePolicy::Asked, true) => Downgrades::Allowed,
            _ => Downgrades::ByRelease,
        };
        let now = crate::clock::now();
        let checked = self.with_transport(|dir, transport| {
            let judge = Judge {
                dir,
                facts,
                machine: &machine,
                boards: &boards,
                downgrades,
            };
            judge.check(offer, transport, now)
        });
        let offer = offer.clone();
        match checked {
            Ok(found) => {
                let of_agent = found.iter().any(|found| super::own::is_agent(&found.to));
                match self.cannot_update_agent().filter(|_| of_agent) {
                    Some(because) => Ok(Event::CheckFailed { offer, because }),
                    None => Ok(Event::Checked { offer, found }),
                }
            }
            Err(Trouble::Failed(because)) => Ok(Event::CheckFailed { offer, because }),
            Err(Trouble::Later(why)) => Err(why),
        }
    }

    fn fetch(&mut self, job: &Job) -> Result<Event, String> {
        let mut parts = Vec::new();
        for part in job.each() {
            let on_boards = self.is_on_boards(&part.to);
            parts.push((self.dir_of(&part.to.release.name), part, on_boards));
        }
        let settings = self.settings.agent.peers.clone();
        let trusts = self.trusts(job);
        let written = std::mem::take(&mut self.written);
        let fetched = self.with_transport(|_, transport| {
            let guard = Rc::clone(&transport.guard);
            let mut peers = match transport.inner.is_file() {
                true => Peers::none(),
                false => Peers::new(&settings, move || guard.check().is_ok()),
            };
            parts.iter().try_for_each(|(dir, part, on_boards)| {
                content::fetch(dir, part, transport, &mut peers, &written, trusts)?;
                match on_boards {
                    true => fetched::fetch(dir, part, transport),
                    false => Ok(()),
                }
            })
        });
        // After an error of the disk, what is in memory may not be what is on it.
        if !matches!(fetched, Err(Trouble::Failed(_))) {
            self.written = written;
        }
        let to = job.to.tree;
        match fetched {
            Ok(()) => Ok(Event::Fetched { to }),
            Err(Trouble::Failed(because)) => Ok(Event::FetchFailed { to, because }),
            Err(Trouble::Later(why)) => Err(why),
        }
    }

    fn stage(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        for part in job.each() {
            let (dir, tree) = (self.dir_of(&part.to.release.name), part.to.tree);
            if dir.slot(tree).exists() {
                continue; // in its slot already: verified there
            }
            let root = dir.staged(tree);
            let staged = if self.written.take_staged(&root) {
                slots::sync_staged(&dir, tree)
            } else {
                self.written.take_checked(&root);
                let Some(tree) = fetched_tree(&dir, tree) else {
                    let because = Failure::new(Reason::Device, "the new tree's document got lost");
                    return Ok(Event::StageFailed { to, because });
                };
                slots::stage(&dir, &tree, part.from.map(|from| from.tree))
            };
            if let Err(error) = staged {
                self.written = Written::default();
                let because = slot_failure(&error);
                return Ok(Event::StageFailed { to, because });
            }
        }
        match self.fill_boards(job)? {
            Some(because) => Ok(Event::StageFailed { to, because }),
            None => Ok(Event::Staged { to }),
        }
    }

    /// Whether files that were checked before are not read again: not what was doubted once, and nothing
    /// where nobody looks for rot.
    fn trusts(&self, job: &Job) -> bool {
        job.attempt == 0 && !self.settings.scrub.is_zero()
    }

    fn verify(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        let written = std::mem::take(&mut self.written);
        for part in job.each() {
            let (dir, tree) = (self.dir_of(&part.to.release.name), part.to.tree);
            let found = if dir.slot(tree).exists() {
                slots::mend(&dir, tree)
            } else if let Some(tree) = fetched_tree(&dir, tree) {
                let from = part.from.map(|from| from.tree);
                let from = from.filter(|_| self.trusts(job));
                slots::accept(&dir, &tree, from, &written)
            } else {
                Ok(Some("the new tree's document got lost".into()))
            };
            let because = match found {
                Ok(None) => continue,
                Ok(Some(damage)) => {
                    let release = &part.to.release;
                    let message = format!("`{release}` is damaged on this device: {damage}");
                    Failure::new(Reason::Device, message)
                }
                Err(error) => slot_failure(&error),
            };
            return Ok(Event::Damaged { to, because });
        }
        let migrates = self.migrates(job);
        Ok(Event::Verified { to, migrates })
    }

    fn switch(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        self.stop_apps(job);
        faults::point("agent:switch:stopped");
        for part in job.each() {
            let dir = self.dir_of(&part.to.release.name);
            if let Err(error) = slots::point_current(&dir, Some(part.to.tree)) {
                return Ok(Event::SwitchFailed {
                    to,
                    because: slot_failure(&error),
                });
            }
            faults::point("agent:switch:one");
        }
        Ok(Event::Switched { to })
    }

    fn roll_back(&mut self, job: &Job) -> Result<Event, String> {
        self.stop_apps(job);
        faults::point("agent:rollback:stopped");
        let failed = |failure: &Failure| format!("cannot roll back: {}", failure.message());
        for part in job.each().rev() {
            let dir = self.dir_of(&part.to.release.name);
            if job.migrates {
                end_hooks(&dir);
                data::put_back(&dir).map_err(|failure| failed(&failure))?;
            }
            let back = part.from.map(|from| from.tree);
            slots::point_current(&dir, back).map_err(|error| failed(&slot_failure(&error)))?;
            faults::point("agent:rollback:one");
        }
        self.take_back_boards(job)?;
        self.after_rollback(job)?;
        Ok(Event::RolledBack { from: job.to.tree })
    }

    fn tidy_after(&mut self, job: &Job) -> Result<Event, String> {
        self.boards_committed(job);
        self.tidy();
        Ok(Event::Tidied {
            current: job.to.tree,
        })
    }

    pub(super) fn tidy(&mut self) {
        self.tidy_due = false;
        let needed = self.machine.needed();
        for dir in self.dirs() {
            // What stays costs space, nothing else; the next update tries again.
            if let Err(error) = slots::tidy(&dir, &needed) {
                self.failed(slot_failure(&error).message().to_owned());
            }
            if let Err(error) = data::forget(&dir) {
                let failure = device_failure("remove", &dir.snapshot(), &error);
                self.failed(failure.message().to_owned());
            }
        }
        crate::memory::give_back();
    }
}

/// The document of a tree that was fetched.
fn fetched_tree(dir: &StateDir, tree: TreeId) -> Option<Tree> {
    let bytes = fs::read(dir.fetched_tree(tree)).ok()?;
    Tree::parse(&bytes).ok().filter(|found| found.id() == tree)
}
