//! Tries the settings that the hub sends: as a small update, with the health check of the apps,
//! and back to those before when one of them does not work.

use std::time::{Duration, Instant};

use pytheas_api::{SETTINGS_DEPTH_MAX, ddi::PollConfig, within_depth};
use pytheas_release::TreeId;
use pytheas_update::{Failure, Installed, Reason, State};
use tracing::{info, warn};

use super::Device;
use crate::{
    app_config::{Revision, is_tag, misfit},
    settings::ApplyConfig,
    slots,
};

/// What cannot be written now is tried again then.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Device {
    /// The releases that settings are for: apps of this device.
    fn configured(&mut self) -> Vec<Installed> {
        let mut running: Vec<Installed> = self.machine.running().into_iter().cloned().collect();
        running
            .retain(|installed| !super::own::is_agent(installed) && !self.is_on_boards(installed));
        running
    }

    fn configured_trees(&mut self) -> Vec<TreeId> {
        self.configured().iter().map(|app| app.tree).collect()
    }

    /// Takes in what the hub sent, to be tried as soon as nothing else is under way.
    pub(super) fn config_offered(&mut self, config: &PollConfig) {
        let (Some(settings), Some(tag)) = (&config.settings, &config.revision) else {
            self.config_offer = None;
            return;
        };
        if !is_tag(tag) {
            warn!("the hub's settings have no usable revision and are left alone");
            return;
        }
        self.config_offer = Some(Revision {
            tag: tag.clone(),
            settings: settings.clone(),
        });
    }

    /// Begins a trial, or ends one that is passed.
    pub(super) fn mind_config(&mut self) {
        if self.is_stopping() || Instant::now() < self.config_at {
            return;
        }
        if self.config_on_trial() {
            return self.judge_config(); // also while an update waits for just this
        }
        if !matches!(self.machine.state(), State::Idle) || !self.pending.is_empty() {
            return;
        }
        let trees = self.configured_trees();
        if self.app_config.reconsider(&trees) {
            self.attributes_due = true;
        }
        let Some(next) = self.config_offer.take() else {
            return;
        };
        if self.app_config.knows(&next.tag, &trees) {
            self.attributes_due = true; // the hub has not heard of it
            return;
        }
        if let Some(why) = self.config_misfit(&next) {
            return self.refuse_config(&next.tag, &Failure::new(Reason::Device, why));
        }
        let same = self.app_config.in_force().settings == next.settings;
        let was_any = self.app_config.in_force().is_any();
        let trial = !same && !trees.is_empty();
        let tag = next.tag.clone();
        if let Err(error) = self.app_config.put(next.clone(), trial) {
            let message = format!("cannot write the settings `{tag}`: {error}");
            warn!("{message}");
            self.failed(message);
            self.config_offer = Some(next);
            self.config_at = Instant::now() + TRY_AGAIN_AFTER;
            return;
        }
        self.attributes_due = true;
        if trial {
            info!("trying the settings `{tag}`");
            self.config_proved.clear();
            // Without `PYTHEAS_CONFIG` an app does not know what to read again.
            self.config_reloads = was_any && self.settings.agent.config == ApplyConfig::Reload;
        } else {
            info!("the settings are `{tag}`");
            self.boards_have_news();
        }
    }

    fn config_misfit(&mut self, next: &Revision) -> Option<String> {
        if !within_depth(&next.settings) {
            let most = SETTINGS_DEPTH_MAX;
            return Some(format!("they are nested deeper than {most} levels"));
        }
        self.configured().iter().find_map(|installed| {
            let dir = self.dir_of(&installed.release.name);
            let record = slots::record(&dir, installed.tree).ok()?;
            misfit(&next.settings, &record)
        })
    }

    /// How a release is to be started while settings are on trial that it has not proved.
    pub(super) fn config_trial(&self, tree: TreeId) -> Option<u8> {
        let tries_left = self.app_config.tries_left()?;
        (!self.config_proved.contains(&tree)).then_some(tries_left)
    }

    /// Whether an update has to wait for the trial of settings.
    pub(super) fn config_on_trial(&self) -> bool {
        self.app_config.tries_left().is_some()
    }

    /// What an earlier agent left: it, or the whole device, ended in the middle of a trial.
    pub(super) fn take_up_config(&mut self) {
        if self.config_on_trial() && self.app_config.try_again().is_none() {
            let tag = self.app_config.in_force().tag.clone();
            let why = "the device or its agent ended each time while they were on trial";
            self.refuse_config(&tag, &Failure::new(Reason::Died, why));
        }
        if let Err(error) = self.app_config.write_out() {
            warn!("cannot write the apps' settings: {error}");
            self.failed(format!("cannot write the apps' settings: {error}"));
        }
    }

    /// A release proved that it works; whether that was about settings.
    pub(super) fn config_proves(&mut self, tree: TreeId) -> bool {
        if !self.config_on_trial() {
            return false;
        }
        self.config_proved.insert(tree);
        self.judge_config();
        true
    }

    fn judge_config(&mut self) {
        let trees = self.configured_trees();
        if !trees.iter().all(|tree| self.config_proved.contains(tree)) {
            return;
        }
        match self.app_config.commit() {
            Ok(()) => {
                info!("the settings are `{}`", self.app_config.in_force().tag);
                self.config_proved.clear();
                self.boards_have_news();
                self.attributes_due = true;
            }
            Err(error) => {
                self.failed(format!(
                    "cannot write that the settings are proved: {error}"
                ));
                self.config_at = Instant::now() + TRY_AGAIN_AFTER;
            }
        }
    }

    /// A release did not work; whether that was about settings. `again` is whether another start
    /// may help.
    pub(super) fn config_fails(&mut self, because: &Failure, again: bool) -> bool {
        if !self.config_on_trial() {
            return false;
        }
        let tag = self.app_config.in_force().tag.clone();
        self.config_reloads = false;
        if again && let Some(left) = self.app_config.try_again() {
            let message = because.message();
            warn!(
                tries_left = left,
                "{message}; it is started again with the settings `{tag}`"
            );
        } else {
            self.refuse_config(&tag, because);
        }
        true
    }

    /// Ends a trial without a verdict; the hub sends the settings again.
    pub(super) fn abandon_config(&mut self) {
        self.app_config.abandon();
        self.config_proved.clear();
        self.config_reloads = false;
        self.stop_for_config();
    }

    fn refuse_config(&mut self, tag: &str, because: &Failure) {
        let was_tried = self.config_on_trial();
        let message = format!(
            "the settings `{tag}` are not applied: {}",
            because.message()
        );
        warn!("{message}");
        self.failed(message);
        let trees = self.configured_trees();
        self.app_config.refuse(tag, because, trees);
        self.config_proved.clear();
        self.config_reloads = false;
        self.attributes_due = true;
        if was_tried {
            // All of them have read what is given up.
            self.stop_for_config();
        }
    }
}
