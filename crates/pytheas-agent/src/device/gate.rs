//! Lets an update wait for its window, for consent, or for the end of a hold.

use std::time::{Duration, Instant};

use pytheas_api::ddi::{Execution, Feedback, Finished};
use pytheas_update::Effect;
use tracing::info;

use super::{Device, MAX_PROGRESS};
use crate::{
    clock,
    hold::{self, Step},
    offline,
};

/// Clocks are set and files removed without a word to us.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl Device {
    /// Whether the machine's effect has to wait; if so it is looked at again by itself.
    pub(super) fn is_held(&mut self) -> bool {
        // An operator who stands beside the device has agreed.
        let ordered = offline::is_under_way(&self.machine);
        if ordered && !self.order.as_ref().is_some_and(|order| order.unattended) {
            self.live.held = None;
            return false;
        }
        let (step, job) = match self.machine.effect() {
            // From a file there is nothing to download.
            Effect::Fetch(job) if !ordered => (Step::Download, job),
            Effect::Verify(job) => (Step::Install, job),
            _ => {
                self.live.held = None;
                return false;
            }
        };
        if job.target.is_none() {
            // A way back: somebody at the device asked for it, or nothing runs any more.
            self.live.held = None;
            return false;
        }
        let now = hold::time(clock::now(), self.http.hub_time());
        let action = self.machine.state().action();
        let Some(wait) = hold::wait(&self.dir, &self.settings.agent, step, (job, action), now)
        else {
            self.live.held = None;
            return false;
        };
        let left = match (wait.until, now) {
            (Some(until), Some(now)) => Duration::try_from(until.duration_since(now)).ok(),
            _ => None,
        };
        let pause = left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        self.effect_at = Instant::now() + pause.max(Duration::from_millis(100));
        if self.live.held.as_ref() != Some(&wait.why) {
            info!("the update waits: {}", wait.why);
            if let Some(action) = self.machine.state().action().cloned() {
                let mut feedback =
                    Feedback::new(Execution::Scheduled, Finished::None).detail(wait.why.as_str());
                feedback.timestamp = Some(clock::now().as_millisecond());
                self.progress.push_back((action, feedback));
                while self.progress.len() > MAX_PROGRESS {
                    self.progress.pop_front();
                }
            }
            self.live.held = Some(wait.why);
        }
        true
    }

    /// Whether a download that goes on may still do so.
    pub(super) fn download_window(&self) -> impl Fn() -> bool + 'static {
        let windows = self.settings.agent.download.windows.clone();
        let http = self.http.clone();
        move || {
            windows.is_always()
                || hold::time(clock::now(), http.hub_time()).is_some_and(|now| windows.is_open(now))
        }
    }
}
