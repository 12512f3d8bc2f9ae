//! The effects of an update that changes data: hooks, and the data set aside while it lasts.

use std::sync::Arc;

use pytheas_durable::faults;
use pytheas_release::{BuildRecord, Hook, Hooks};
use pytheas_update::{Event, Failure, Job};
use tracing::{error, info};

use super::Device;
use crate::{
    data,
    failure::slot_failure,
    paths::StateDir,
    slots,
    supervisor::{HookRun, Stopped, end_hooks, run_hook},
};

/// Why a step ended before its end.
enum Ended {
    /// The agent stops: the step is done again.
    Interrupted,
    /// Trying again is no use.
    Failed(Failure),
}

impl Device {
    /// Whether `job` has more to do than to switch.
    pub(super) fn migrates(&self, job: &Job) -> bool {
        job.each().any(|part| {
            let record = slots::record(&self.dir_of(&part.to.release.name), part.to.tree);
            record.is_ok_and(|record| match is_way_back(&part) {
                true => record.update.hooks.after_rollback.is_some(),
                false => record.update.hooks.shape_an_update(),
            })
        })
    }

    /// Each part of `job` with its folder and what the release says of itself.
    fn records(&self, job: &Job) -> Result<Vec<(Job, StateDir, BuildRecord)>, Failure> {
        job.each()
            .map(|part| {
                let dir = self.dir_of(&part.to.release.name);
                let record = slots::record(&dir, part.to.tree).map_err(|e| slot_failure(&e))?;
                Ok((part, dir, record))
            })
            .collect()
    }

    pub(super) fn prepare(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        let prepared = self.records(job).map_err(Ended::Failed).and_then(|parts| {
            let copied: Vec<StateDir> = parts
                .iter()
                .filter(|(part, _, record)| wants_snapshot(part, &record.update.hooks))
                .map(|(_, dir, _)| dir.clone())
                .collect();
            data::require_space(&copied).map_err(Ended::Failed)?;
            for (part, dir, record) in parts.iter().filter(|(part, ..)| !is_way_back(part)) {
                let hook = record.update.hooks.before_update.as_ref();
                self.run_one(part, dir, record, "before-update", hook)?;
            }
            Ok(())
        });
        outcome(prepared, Event::Prepared { to }, |because| {
            Event::PrepareFailed { to, because }
        })
    }

    pub(super) fn snapshot(&mut self, job: &Job) -> Result<Event, String> {
        let to = job.to.tree;
        self.stop_apps(job);
        faults::point("agent:snapshot:stopped");
        let done = self.records(job).and_then(|parts| {
            for (part, dir, record) in &parts {
                end_hooks(dir);
                if wants_snapshot(part, &record.update.hooks) {
                    data::set_aside(dir)?;
                }
            }
            Ok(())
        });
        Ok(match done {
            Ok(()) => Event::Snapshotted { to },
            Err(because) => Event::SnapshotFailed { to, because },
        })
    }

    pub(super) fn migrate(&mut self, job: &Job, again: bool) -> Result<Event, String> {
        let to = job.to.tree;
        self.stop_apps(job);
        let done = self.records(job).map_err(Ended::Failed).and_then(|parts| {
            for (part, dir, record) in &parts {
                end_hooks(dir);
                if again {
                    data::again(dir).map_err(Ended::Failed)?;
                }
                let hooks = &record.update.hooks;
                let (name, hook) = match is_way_back(part) {
                    true => ("after-rollback", hooks.after_rollback.as_ref()),
                    false => ("after-update", hooks.after_update.as_ref()),
                };
                self.run_one(part, dir, record, name, hook)?;
                faults::point("agent:migrate:one");
            }
            Ok(())
        });
        outcome(done, Event::Migrated { to }, |because| {
            Event::MigrateFailed { to, because }
        })
    }

    /// Runs the hooks of the releases that are gone back to. One that fails changes nothing: there
    /// is nowhere else to go.
    pub(super) fn after_rollback(&mut self, job: &Job) -> Result<(), String> {
        for part in job.each() {
            let Some(from) = &part.from else { continue };
            let dir = self.dir_of(&from.release.name);
            let Ok(record) = slots::record(&dir, from.tree) else {
                continue; // said when it is started
            };
            // The same way, seen from the other side.
            let back = Job {
                from: Some(part.to.clone()),
                to: from.clone(),
                ..part.clone()
            };
            let hook = record.update.hooks.after_rollback.as_ref();
            match self.run_one(&back, &dir, &record, "after-rollback", hook) {
                Ok(()) => {}
                Err(Ended::Interrupted) => return Err("the agent stops".into()),
                Err(Ended::Failed(failure)) => {
                    error!("{}", failure.message());
                    self.failed(failure.message().to_owned());
                }
            }
        }
        Ok(())
    }

    fn run_one(
        &self,
        part: &Job,
        dir: &StateDir,
        record: &BuildRecord,
        name: &'static str,
        hook: Option<&Hook>,
    ) -> Result<(), Ended> {
        let Some(hook) = hook else { return Ok(()) };
        let run = HookRun {
            dir,
            name,
            hook,
            tree: part.to.tree,
            record,
            from: part.from.as_ref().map(|from| &from.release),
            to: Some(&part.to.release),
            confinement: &self.settings.confinement,
        };
        let stop = Arc::clone(&self.waker.stop);
        run_hook(&run, &stop).map_err(|stopped| match stopped {
            Stopped::ByAgent => Ended::Interrupted,
            Stopped::Failed(failure) => Ended::Failed(failure),
        })?;
        info!("the hook `{name}` of `{}` is done", part.to.release);
        Ok(())
    }
}

/// Whether a release that was there before is wanted again: its `after-update` knows nothing of
/// the data that a later one has made.
fn is_way_back(part: &Job) -> bool {
    part.target.is_none()
}

fn wants_snapshot(part: &Job, hooks: &Hooks) -> bool {
    match is_way_back(part) {
        true => hooks.after_rollback.is_some(),
        false => hooks.wants_snapshot(),
    }
}

fn outcome(
    done: Result<(), Ended>,
    well: Event,
    badly: impl FnOnce(Failure) -> Event,
) -> Result<Event, String> {
    match done {
        Ok(()) => Ok(well),
        Err(Ended::Failed(because)) => Ok(badly(because)),
        Err(Ended::Interrupted) => Err("the agent stops".into()),
    }
}
