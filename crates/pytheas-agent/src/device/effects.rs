//! The effects of the update machine: each may be repeated after a power cut at any point of it.

use std::{fs, sync::Arc, sync::atomic::Ordering, time::Instant};

use pytheas_durable::faults;
use pytheas_release::{Tree, TreeId};
use pytheas_repo::fetch::Fetch;
use pytheas_update::{Effect, Event, Failure, Job, Reason};
use tracing::{debug, warn};

use super::Device;
use crate::{
    backoff::spread,
    check, content,
    failure::{Trouble, slot_failure},
    interrupt::{Guard, Guarded},
    offline::{self, Source},
    paths::StateDir,
    slots,
};

impl Device {
    /// Performs the machine's effect once and takes in what comes of it.
    pub(super) fn perform(&mut self) {
        debug!(state = self.machine.state().name(), "performing");
        if self.is_held() {
            return;
        }
        faults::point("agent:effect:before");
        let machine = self.machine.clone();
        let result = match machine.effect() {
            Effect::Rest | Effect::Prove { .. } => return,
            Effect::Check { target } => self.check(target),
            Effect::Fetch(job) => self.fetch(job),
            Effect::Stage(job) => self.stage(job),
            Effect::Verify(job) => self.verify(job),
            Effect::Switch(job) => self.switch(job),
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
        } else {
            Source::Hub(self.http.repository(&self.identity.device_id, token))
        };
        Ok(Guarded { inner, guard })
    }

    /// Does `work` with it. Trouble with a file is final, unless the agent itself broke off.
    fn with_transport<T>(
        &mut self,
        work: impl FnOnce(&StateDir, &mut dyn Fetch) -> Result<T, Trouble>,
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

    fn check(&mut self, target: &str) -> Result<Event, String> {
        let (platform, current) = (
            self.identity.platform.clone(),
            self.machine.current().cloned(),
        );
        let now = crate::clock::now();
        let checked = self.with_transport(|dir, transport| {
            check::check(dir, &platform, current.as_ref(), target, transport, now)
        });
        let target = target.to_owned();
        match checked {
            Ok(to) => Ok(Event::Checked { target, to }),
            Err(Trouble::Failed(because)) => Ok(Event::CheckFailed { target, because }),
            Err(Trouble::Later(why)) => Err(why),
        }
    }

    fn fetch(&mut self, job: &Job) -> Result<Event, String> {
        let fetched = self.with_transport(|dir, transport| content::fetch(dir, job, transport));
        let to = job.to.tree;
        match fetched {
            Ok(()) => Ok(Event::Fetched { to }),
            Err(Trouble::Failed(because)) => Ok(Event::FetchFailed { to, because }),
            Err(Trouble::Later(why)) => Err(why),
        }
    }

    fn stage(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        if self.dir.slot(to).exists() {
            return Ok(Event::Staged { to }); // in its slot already: verified there
        }
        let Some(tree) = self.fetched_tree(to) else {
            let because = Failure::new(Reason::Device, "the new tree's document got lost");
            return Ok(Event::StageFailed { to, because });
        };
        match slots::stage(&self.dir, &tree, job.from.as_ref().map(|from| from.tree)) {
            Ok(()) => Ok(Event::Staged { to }),
            Err(error) => Ok(Event::StageFailed {
                to,
                because: slot_failure(&error),
            }),
        }
    }

    fn fetched_tree(&self, tree: TreeId) -> Option<Tree> {
        let bytes = fs::read(self.dir.fetched_tree(tree)).ok()?;
        Tree::parse(&bytes).ok().filter(|found| found.id() == tree)
    }

    fn verify(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        let found = if self.dir.slot(to).exists() {
            slots::mend(&self.dir, to)
        } else if let Some(tree) = self.fetched_tree(to) {
            slots::accept(&self.dir, &tree)
        } else {
            Ok(Some("the new tree's document got lost".into()))
        };
        let damaged = |because| Event::Damaged { to, because };
        Ok(match found {
            Ok(None) => Event::Verified { to },
            Ok(Some(damage)) => {
                let message = format!("`{}` is damaged on this device: {damage}", job.to.release);
                damaged(Failure::new(Reason::Device, message))
            }
            Err(error) => damaged(slot_failure(&error)),
        })
    }

    fn switch(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        self.stop_app();
        faults::point("agent:switch:stopped");
        match slots::point_current(&self.dir, Some(to)) {
            Ok(()) => Ok(Event::Switched { to }),
            Err(error) => Ok(Event::SwitchFailed {
                to,
                because: slot_failure(&error),
            }),
        }
    }

    fn roll_back(&mut self, job: &Job) -> Result<Event, String> {
        self.stop_app();
        faults::point("agent:rollback:stopped");
        let to = job.from.as_ref().map(|from| from.tree);
        match slots::point_current(&self.dir, to) {
            Ok(()) => Ok(Event::RolledBack { from: job.to.tree }),
            Err(error) => Err(format!(
                "cannot roll back: {}",
                slot_failure(&error).message()
            )),
        }
    }

    fn tidy_after(&mut self, job: &Job) -> Result<Event, String> {
        self.tidy();
        Ok(Event::Tidied {
            current: job.to.tree,
        })
    }

    pub(super) fn tidy(&mut self) {
        match slots::tidy(&self.dir, &self.machine.needed()) {
            Ok(()) => {
                self.tidy_due = false;
                crate::memory::give_back();
            }
            // What stays costs space, nothing else; the next update tries again.
            Err(error) => {
                self.tidy_due = false;
                self.failed(slot_failure(&error).message().to_owned());
            }
        }
    }

    pub(super) fn stop_app(&mut self) {
        self.supervisor.stop();
        self.ordered = None;
        self.launch_at = Instant::now(); // whatever runs next has not failed yet
    }
}
