//! The device's side of the conversation with its hub: polls, offers, reports, attributes.

use std::time::{Duration, Instant};

use pytheas_api::ddi::{self, Handling};
use pytheas_durable::faults;
use pytheas_update::{ActionId, Event, Failure, Offer, Outcome, Reason, State};
use tracing::{debug, error, info, warn};

use super::{DEFAULT_INTERVAL, Device, LONGEST_INTERVAL, LONGEST_PAUSE};
use crate::{
    attributes,
    backoff::{jittered, spread},
    confirm::{self, Confirming},
    enrol,
    error::AgentError,
    history,
    http::{self, HttpError},
    hub::{self, Hub},
};

/// How often something is told to a hub that is too busy to take it and does not say for how long, …
const BUSY_TRIES: u8 = 4;
/// … and for how long at least: a hub that is busy for half a minute has not heard enough for good.
/// Where polls are quicker, as many as the tries.
const BUSY_FOR: Duration = Duration::from_secs(120);

impl Device {
    /// Asks the hub what there is to do.
    pub(super) fn poll(&mut self) {
        self.polled = true;
        if self.detached {
            return self.poll_again_in(LONGEST_INTERVAL);
        }
        if self.hub.is_none() && !self.ask_to_be_accepted() {
            return;
        }
        let Some(hub) = self.hub.clone() else { return };
        let result = hub.poll().and_then(|root| {
            self.heed_root(&root);
            match self.follow(&hub, &root) {
                // Withdrawn between the two requests: the next poll shows what is wanted instead.
                Err(error) if hub::is_settled(&error) => Ok(()),
                other => other,
            }
        });
        match result {
            Ok(()) => {
                self.hub_backoff.reset();
                self.live.last_poll_ms = Some(crate::clock::now().as_millisecond());
                self.poll_again_in(jittered(self.interval, self.settings.agent.jitter_percent));
                self.tell_at = Instant::now();
            }
            Err(error) => self.hub_failed(&error),
        }
    }

    fn heed_root(&mut self, root: &ddi::PollRoot) {
        self.interval = self
            .settings
            .poll_interval
            .or_else(|| root.config.polling.interval())
            .unwrap_or(DEFAULT_INTERVAL)
            .min(LONGEST_INTERVAL);
        self.config_offered(&root.config);
        if root.links.config_data.is_some() {
            self.attributes_due = true;
        }
    }

    /// Follows the links of a poll's answer.
    fn follow(&mut self, hub: &Hub, root: &ddi::PollRoot) -> Result<(), HttpError> {
        if let Some(offer) = root.links.cancel_action.as_ref().and_then(hub::offer) {
            let cancel = hub.cancellation(&offer)?;
            if let Ok(action) = cancel.cancel_action.stop_id.parse() {
                self.happen(Event::CancelWanted { action });
            }
            return Ok(());
        }
        if let Some(offer) = root.links.confirmation_base.as_ref().and_then(hub::offer) {
            return self.is_asked(hub, &offer);
        }
        self.live.confirm = None;
        let Some(offer) = root.links.deployment_base.as_ref().and_then(hub::offer) else {
            return Ok(());
        };
        let state = self.machine.state();
        if state.action() == Some(&offer.action) {
            return Ok(());
        }
        if !matches!(state, State::Idle) && state.action().is_none() {
            // What the hub does not know of goes to its end first.
            self.asks_again = true;
            return Ok(());
        }
        let base = hub.deployment(&offer)?;
        if base.deployment.update == Handling::Skip
            || base.deployment.maintenance_window.as_deref() == Some("unavailable")
        {
            return Ok(()); // not now
        }
        let chunks = &base.deployment.chunks;
        let targets: Vec<&str> = chunks
            .iter()
            .filter_map(|c| c.metadata(ddi::TARGET_KEY))
            .collect();
        let went_back = targets
            .iter()
            .find(|target| self.went_back_from(&offer.action, target))
            .map(|target| {
                format!(
                    "somebody at the device went back from `{target}` after this action had \
                     installed it\nhelp: roll it out by another action to install it again"
                )
            });
        let action = Some(offer.action);
        match targets.split_first() {
            Some((target, also)) => {
                let downgrade = chunks
                    .iter()
                    .any(|c| c.metadata(ddi::DOWNGRADE_KEY) == Some("true"));
                let offer = Offer {
                    target: (*target).to_owned(),
                    also: also.iter().map(|target| (*target).to_owned()).collect(),
                    downgrade,
                };
                self.happen(Event::Wanted {
                    action,
                    offer: offer.clone(),
                });
                if let Some(message) = went_back {
                    let because = Failure::new(Reason::Superseded, message);
                    self.happen(Event::CheckFailed { offer, because });
                }
            }
            None => {
                let names: Vec<_> = chunks.iter().map(|c| c.name.as_str()).collect();
                let message = format!(
                    "action has no Pytheas release in it (only: {})\n\
                     help: plain artifacts are for other clients (SWUpdate, RAUC); roll out a release",
                    names.join(", ")
                );
                let because = Failure::new(Reason::Incompatible, message);
                let offer = Offer::one("");
                self.happen(Event::Wanted {
                    action,
                    offer: offer.clone(),
                });
                self.happen(Event::CheckFailed { offer, because });
            }
        }
        Ok(())
    }

    /// Somebody at this device is to agree before anything is fetched.
    fn is_asked(&mut self, hub: &Hub, offer: &hub::Offer) -> Result<(), HttpError> {
        let known = self.live.confirm.as_ref().map(|known| &known.action);
        if known == Some(&offer.action) {
            return Ok(());
        }
        let base = hub.confirmation(offer)?;
        let names = base.confirmation.chunks.iter();
        let names: Vec<String> = names.map(|c| format!("{}@{}", c.name, c.version)).collect();
        let release = http::one_line(&names.join(", "));
        info!("`{release}` waits to be confirmed: `pytheas-agent approve`, or `deny`");
        self.live.confirm = Some(Confirming {
            action: offer.action.clone(),
            release,
        });
        Ok(())
    }

    /// Whether an operator undid what `action` did here.
    fn went_back_from(&self, action: &ActionId, target: &str) -> bool {
        history::load(&self.dir)
            .is_ok_and(|entries| history::gone_back_from(&entries, action, target))
    }

    /// Whether the device is accepted now.
    fn ask_to_be_accepted(&mut self) -> bool {
        let key = self.settings.enrolment_key.clone();
        let name = self.settings.name.clone();
        let asked = enrol::ask(
            &self.dir,
            &mut self.identity,
            &self.http,
            key.as_deref(),
            name.as_deref(),
        );
        match asked {
            Ok(true) => {
                self.hub = Hub::of(&self.identity, &self.http);
                self.attributes_due = true;
                true
            }
            Ok(false) => {
                info!("device `{}` waits to be accepted", self.identity.device_id);
                let interval = enrol::ASK_INTERVAL.min(self.interval);
                self.poll_again_in(jittered(interval, self.settings.agent.jitter_percent));
                false
            }
            Err(AgentError::Http(error)) => {
                // Another kind of DDI server accepts nobody; a token that it refused once (a
                // proxy?) is tried again.
                self.hub = Hub::of(&self.identity, &self.http);
                self.hub_failed(&error);
                false
            }
            Err(error) => {
                let text = crate::http::chain(&error);
                error!("cannot enrol: {text}");
                self.failed(text);
                let pause = self.hub_backoff.next();
                self.poll_again_in(pause);
                false
            }
        }
    }

    fn hub_failed(&mut self, error: &HttpError) {
        if matches!(error, HttpError::Unauthorised { .. }) && self.hub.take().is_some() {
            // Removed and accepted again, or a hub restored from a backup: our claim tells.
            warn!("{}; asking to be accepted again", error.line());
        }
        let longest = LONGEST_PAUSE.min(self.interval);
        self.hub_backoff.set_most(longest);
        let pause = self
            .hub_backoff
            .next()
            .max(spread(error.retry_after().unwrap_or_default()));
        warn!(pause_ms = pause.as_millis() as u64, "{}", error.line());
        self.failed(error.line());
        self.poll_again_in(pause);
        self.tell_at = Instant::now() + pause;
    }

    fn poll_again_in(&mut self, pause: Duration) {
        self.poll_at = Instant::now() + pause;
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let now = crate::clock::now().as_millisecond();
        self.live.next_poll_ms = Some(now.saturating_add(pause_ms));
    }

    /// Tells the hub what it has to know, in the order in which it happened.
    pub(super) fn tell(&mut self) {
        let Some(hub) = self.hub.clone() else { return };
        if Instant::now() < self.tell_at {
            return;
        }
        if let Some(answer) = confirm::pending(&self.dir) {
            match hub.confirm(&answer.action, &answer.said) {
                Err(error) if !self.is_over(&error) => return self.hub_failed(&error),
                Err(error) => warn!(
                    "the hub takes no answer about action {}: {error}",
                    answer.action
                ),
                Ok(()) => {
                    self.refused_as_busy = None;
                    self.poll_at = Instant::now();
                }
            }
            faults::point("agent:answer:told");
            confirm::told(&self.dir);
        }
        while let Some((action, feedback)) = self.progress.pop_front() {
            if self.heard_enough.as_ref() == Some(&action) {
                continue;
            }
            let Err(error) = hub.progress(&action, &feedback) else {
                self.refused_as_busy = None;
                continue;
            };
            if !self.is_over(&error) {
                self.progress.push_front((action, feedback));
                return self.hub_failed(&error);
            }
            if error.status() == Some(429) {
                debug!("the hub takes no more progress of action {action}: {error}");
                self.heard_enough = Some(action);
            }
        }
        // First what runs here: whoever sees an action closed finds the device as it is.
        if self.attributes_due && !self.tell_attributes(&hub) {
            return;
        }
        while let Some(report) = self.machine.outbox().first().cloned() {
            faults::point("agent:report:before");
            match hub.report(&report) {
                Err(error) if !hub::is_settled(&error) => return self.hub_failed(&error),
                Err(error) => debug!(
                    "the hub takes no report on action {}: {error}",
                    report.action
                ),
                Ok(()) => {}
            }
            faults::point("agent:report:after");
            let given_up = matches!(report.outcome, Outcome::Cancelled);
            self.happen(Event::Delivered { report });
            if !self.pending.is_empty() {
                return; // could not be saved: told again later
            }
            if given_up {
                // A new deployment took its place and waits.
                self.poll_at = self
                    .poll_at
                    .min(Instant::now() + Duration::from_millis(100));
            }
        }
    }

    /// Whether what the hub does not take is not told again. A 429 that names no time means that
    /// the hub is busy, or that it has heard enough of this action for good (hawkBit, and ours):
    /// when it comes [`BUSY_TRIES`] times one after the other, for [`BUSY_FOR`], it is taken for the
    /// latter, so that nothing else waits behind it for ever.
    fn is_over(&mut self, error: &HttpError) -> bool {
        let names_no_time = error.status() == Some(429) && error.retry_after().is_none();
        if !names_no_time {
            self.refused_as_busy = None;
            return hub::is_settled(error);
        }
        let now = Instant::now();
        let (tries, since) = self.refused_as_busy.unwrap_or((0, now));
        let tries = tries.saturating_add(1);
        let quick = self.interval.saturating_mul(u32::from(BUSY_TRIES) - 1);
        let enough = BUSY_FOR.min(quick);
        let is_over = tries >= BUSY_TRIES && now.duration_since(since) >= enough;
        self.refused_as_busy = (!is_over).then_some((tries, since));
        is_over
    }

    /// Whether the rest may be told: the hub heard, or refuses for good what it was told.
    fn tell_attributes(&mut self, hub: &Hub) -> bool {
        let history = history::load(&self.dir).unwrap_or_default();
        let mut data = attributes::now(
            &self.identity.platform,
            self.model.as_deref(),
            &self.machine,
            history.last(),
            self.live.damage.as_deref(),
            self.live.settings.as_deref(),
        );
        let boards = self.boards.attributes(&self.settings.agent.boards);
        data.data.extend(boards);
        data.data.extend(self.app_config.attributes());
        match hub.attributes(&data) {
            Ok(()) => {
                self.refused_as_busy = None;
                self.attributes_due = false;
                true
            }
            Err(error) => {
                // A hub that finds them too many says 429 as well.
                let is_over = self.is_over(&error);
                self.hub_failed(&error);
                is_over
            }
        }
    }
}
