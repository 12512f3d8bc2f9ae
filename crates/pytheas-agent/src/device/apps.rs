//! The apps of a device: a supervisor for each component, and which of them is to run what.
//!
//! On probation the releases of one update are started in its order, each when the one before it
//! has proved that it works; the update is healthy when all have.

use std::{
    io,
    time::{Duration, Instant},
};

use pytheas_release::{Name, TreeId};
use pytheas_update::{Event, Failure, Installed, Job, Reason, State};
use tracing::error;

use super::{Device, TRY_AGAIN_AFTER, Wake};
use crate::{
    failure::slot_failure,
    paths::StateDir,
    slots,
    supervisor::{self, AppEvent, Launch, Supervisor},
};

/// One component's app.
pub(super) struct App {
    pub(super) dir: StateDir,
    pub(super) supervisor: Supervisor,
    /// What the supervisor was told last.
    pub(super) ordered: Option<(TreeId, Option<u8>)>,
    /// It is not started before this moment.
    pub(super) launch_at: Instant,
}

impl App {
    pub(super) fn new(dir: StateDir, supervisor: Supervisor) -> Self {
        Self {
            dir,
            supervisor,
            ordered: None,
            launch_at: Instant::now(),
        }
    }

    pub(super) fn stop(&mut self) {
        self.supervisor.stop();
        self.ordered = None;
        self.launch_at = Instant::now(); // whatever runs next has not failed yet
    }
}

impl Device {
    /// Where a component lies: the first one in the device's own directory.
    pub(super) fn dir_of(&self, name: &Name) -> StateDir {
        match self.machine.first_name() == Some(name) {
            true => self.dir.clone(),
            false => self.dir.component(name),
        }
    }

    /// The directories of every component there is or was.
    pub(super) fn dirs(&self) -> Vec<StateDir> {
        let further = self.dir.components();
        let further = further.iter().map(|name| self.dir.component(name));
        std::iter::once(self.dir.clone()).chain(further).collect()
    }

    /// A component's app; its supervisor is started when there is none yet.
    fn app(&mut self, name: &Name) -> io::Result<&mut App> {
        if self.machine.first_name() == Some(name) {
            return Ok(&mut self.first);
        }
        if !self.others.contains_key(name) {
            let dir = self.dir.component(name);
            pytheas_durable::create_dir_all(dir.root())?;
            let events = self.waker.wakes.clone();
            let settings = supervisor::Settings {
                watchdog: self.settings.watchdog,
                confinement: self.settings.confinement.clone(),
                ..supervisor::Settings::default()
            };
            let supervisor = Supervisor::start(&dir, settings, move |event| {
                let _agent_ended = events.send(Wake::App(event));
            })?;
            self.waker.add(supervisor.stop_handle());
            self.others.insert(name.clone(), App::new(dir, supervisor));
        }
        self.others
            .get_mut(name)
            .ok_or_else(|| io::Error::other("the supervisor was not kept"))
    }

    /// A component's app, if it was ever started here.
    pub(super) fn running_app(&mut self, name: &Name) -> Option<&mut App> {
        match self.machine.first_name() == Some(name) {
            true => Some(&mut self.first),
            false => self.others.get_mut(name),
        }
    }

    fn apps(&mut self) -> impl Iterator<Item = &mut App> {
        std::iter::once(&mut self.first).chain(self.others.values_mut())
    }

    /// Whether an app that is to run has no process yet.
    pub(super) fn awaits_app(&mut self) -> bool {
        self.apps()
            .any(|app| app.ordered.is_some() && app.supervisor.status().pid.is_none())
    }

    /// Stops the apps that `job` is about.
    pub(super) fn stop_apps(&mut self, job: &Job) {
        for name in job.names() {
            if self.machine.first_name() == Some(name) {
                self.first.stop();
            } else if let Some(app) = self.others.get_mut(name) {
                app.stop();
            }
        }
    }

    /// Stops the apps of components that the machine does not know.
    pub(super) fn stop_removed(&mut self) {
        let names: Vec<&Name> = self
            .machine
            .running()
            .iter()
            .map(|i| &i.release.name)
            .collect();
        if names
            .iter()
            .all(|name| self.machine.first_name() != Some(name))
        {
            self.first.stop();
        }
        self.others.retain(|name, app| {
            let stays = names.contains(&name);
            if !stays {
                app.stop();
            }
            stays
        });
    }

    /// Stops every app, to be started with other settings.
    pub(super) fn stop_for_config(&mut self) {
        for app in self.apps() {
            app.stop();
        }
    }

    /// Stops every app.
    pub(super) fn stop_all(&mut self) {
        for app in self.apps() {
            app.supervisor.stop();
        }
    }

    /// Lets the releases run that should be running.
    pub(super) fn supervise(&mut self) {
        self.next_launch = None;
        if self.is_stopping() {
            return; // it was stopped while we waited for the hub
        }
        // Judged already, but not yet on disk (full?): starting it again would not help.
        let is_verdict = |e: &Event| {
            matches!(
                e,
                Event::Healthy { .. } | Event::Died { .. } | Event::NotReady { .. }
            )
        };
        let judged = self.pending.iter().any(is_verdict);
        let state = self.machine.state();
        let trial = match state {
            State::Probation { tries_left, .. } => Some(*tries_left),
            _ => None,
        };
        // The effects of these stop what they are about.
        let untouched = matches!(
            state,
            State::Snapshotting { .. }
                | State::Switching { .. }
                | State::Migrating { .. }
                | State::RollingBack { .. }
        );
        let moved: Vec<Name> = state
            .job()
            .map(|job| job.names().cloned().collect())
            .unwrap_or_default();
        let running: Vec<Installed> = self.machine.running().into_iter().cloned().collect();
        self.mind_boards();
        for installed in running.iter().filter(|i| !super::own::is_agent(i)) {
            if self.is_on_boards(installed) {
                let on_trial = trial.is_some()
                    && moved.contains(&installed.release.name)
                    && !self.proved.contains(&installed.tree);
                if on_trial && !judged {
                    self.try_on_boards(installed);
                    break; // those after it wait until it works
                }
                continue;
            }
            if !moved.contains(&installed.release.name) {
                self.keep_running(installed, self.config_trial(installed.tree));
                continue;
            }
            if untouched || judged {
                continue;
            }
            if trial.is_none() || self.proved.contains(&installed.tree) {
                self.keep_running(installed, self.config_trial(installed.tree));
                continue;
            }
            self.keep_running(installed, trial);
            break; // those after it wait until it works
        }
    }

    fn keep_running(&mut self, installed: &Installed, trial: Option<u8>) {
        let tree = installed.tree;
        let settings = self.app_config.in_force().clone();
        let reloads = self.config_reloads && self.config_on_trial();
        let app = match self.app(&installed.release.name) {
            Ok(app) => app,
            Err(source) => {
                let because = crate::failure::device_failure(
                    "start the supervisor in",
                    self.dir_of(&installed.release.name).root(),
                    &source,
                );
                return self.cannot_launch(installed, trial, because);
            }
        };
        if app.ordered == Some((tree, trial)) {
            return;
        }
        if Instant::now() < app.launch_at {
            let at = app.launch_at;
            self.next_launch = Some(self.next_launch.map_or(at, |next| next.min(at)));
            return;
        }
        let record = slots::record(&app.dir, tree).and_then(|record| {
            // A power cut between saving and linking, or a person, may have moved `current`.
            if slots::current(&app.dir) != Some(tree) {
                slots::point_current(&app.dir, Some(tree))?;
            }
            Ok(record)
        });
        match record {
            Ok(record) => {
                let launch = Launch::new(tree, record, trial).with_settings(&settings, &app.dir);
                match app.ordered {
                    Some((ordered, None)) if reloads && ordered == tree => {
                        app.supervisor.reload(launch);
                    }
                    _ => app.supervisor.launch(launch),
                }
                app.ordered = Some((tree, trial));
            }
            Err(error) => self.cannot_launch(installed, trial, slot_failure(&error)),
        }
    }

    fn cannot_launch(&mut self, installed: &Installed, trial: Option<u8>, because: Failure) {
        match trial {
            Some(_) if self.config_fails(&because, true) => {}
            Some(_) => self.died(installed.tree, trial, because),
            None => {
                error!("cannot start the current release: {}", because.message());
                self.failed(because.message().to_owned());
                self.suspect();
                let at = Instant::now() + Duration::from_secs(10);
                if let Ok(app) = self.app(&installed.release.name) {
                    app.launch_at = at;
                }
                self.next_launch = Some(at);
            }
        }
    }

    /// The update on probation that `tree` is part of.
    fn on_trial(&self, tree: TreeId) -> Option<&Job> {
        match self.machine.state() {
            State::Probation { job, .. } if job.goals().any(|goal| goal.tree == tree) => Some(job),
            _ => None,
        }
    }

    fn died(&mut self, tree: TreeId, tries_left: Option<u8>, because: Failure) {
        let to = self.on_trial(tree).map_or(tree, |job| job.to.tree);
        if let Some(tries_left) = tries_left {
            self.happen(Event::Died {
                to,
                tries_left,
                because,
            });
        }
    }

    fn app_of(&mut self, tree: TreeId) -> Option<&mut App> {
        self.apps()
            .find(|app| app.ordered.is_some_and(|(ordered, _)| ordered == tree))
    }

    /// Takes in what became of an app.
    pub(super) fn app_event(&mut self, event: AppEvent) {
        match event {
            AppEvent::Healthy { tree } => {
                if let Some(app) = self.app_of(tree) {
                    app.ordered = Some((tree, None));
                }
                if self.config_proves(tree) {
                    return;
                }
                let Some(job) = self.on_trial(tree).cloned() else {
                    return;
                };
                self.proved.insert(tree);
                self.judge(&job);
            }
            AppEvent::Died {
                tree,
                tries_left,
                because,
            } => {
                if let Some(app) = self.app_of(tree) {
                    app.ordered = None;
                    // What it needs (a port, a database) may be there a moment later.
                    app.launch_at = Instant::now() + TRY_AGAIN_AFTER;
                }
                if !self.config_fails(&because, true) {
                    self.died(tree, Some(tries_left), because);
                }
            }
            AppEvent::NotReady { tree, because } => {
                if let Some(app) = self.app_of(tree) {
                    app.ordered = None;
                }
                if self.config_fails(&because, false) {
                    return;
                }
                let to = self.on_trial(tree).map_or(tree, |job| job.to.tree);
                self.happen(Event::NotReady { to, because });
            }
            AppEvent::Crashed { because } => {
                self.failed(because.message().to_owned());
                self.suspect();
            }
        }
    }

    /// The update on trial works when all of it has proved that.
    pub(super) fn judge(&mut self, job: &Job) {
        if !job.goals().all(|goal| self.proved.contains(&goal.tree)) {
            return;
        }
        let to = job.to.tree;
        let verdict = match self.fallen_since(job) {
            None => Event::Healthy { to },
            Some(because) => Event::NotReady { to, because },
        };
        self.happen(verdict);
    }

    /// A release of `job` that proved itself and ended while those after it did.
    fn fallen_since(&mut self, job: &Job) -> Option<Failure> {
        if job.also.is_empty() {
            return None; // nobody came after it
        }
        let apps: Vec<&Installed> = job
            .goals()
            .filter(|goal| !super::own::is_agent(goal) && !self.is_on_boards(goal))
            .collect();
        let fallen = apps.into_iter().find(|goal| {
            self.app_of(goal.tree)
                .is_none_or(|app| app.supervisor.status().pid.is_none())
        })?;
        let message = format!(
            "`{}` ended again while those that need it proved themselves",
            fallen.release
        );
        Some(Failure::new(Reason::Died, message))
    }

    /// What each further app does now.
    pub(super) fn other_apps(&self) -> std::collections::BTreeMap<String, supervisor::AppStatus> {
        self.others
            .iter()
            .map(|(name, app)| (name.to_string(), app.supervisor.status()))
            .collect()
    }
}
