//! Orders of an operator to update from a file: begun when the machine is free, ended with a word
//! that `apply` waits for.

use pytheas_update::{Event, Machine, Reason, State};
use tracing::{info, warn};

use super::Device;
use crate::offline::{self, Order, Outcome};

impl Device {
    /// Takes up what an earlier agent left: an order under way goes on, one whose end was not
    /// written down ends now.
    pub(super) fn take_up_order(&mut self) {
        self.order = Order::load(&self.dir).filter(|order| order.outcome.is_none());
        if !offline::is_under_way(&self.machine) {
            self.end_order(None);
        }
    }

    /// Updates from `order`'s file as soon as nothing else is under way.
    pub(crate) fn apply(&mut self, order: Order) {
        self.ordered_next = Some(order);
    }

    /// Begins the order that waits.
    pub(super) fn begin_order(&mut self) {
        if !matches!(self.machine.state(), State::Idle) || !self.pending.is_empty() {
            return;
        }
        let Some(mut order) = self.ordered_next.take() else {
            return;
        };
        if let Err(error) = order.save(&self.dir) {
            warn!("cannot keep what was ordered: {error}");
            return self.failed(format!("cannot keep what was ordered: {error}"));
        }
        info!(file = %order.file.display(), target = %order.target, "updating from `{}`", order.file.display());
        let offer = order.offer();
        self.order = Some(order.clone());
        self.happen(Event::Wanted {
            action: None,
            offer,
        });
        if matches!(self.machine.state(), State::Idle) && self.pending.is_empty() {
            order.outcome = Some(Outcome::Failed {
                reason: Reason::Device,
                message: "too many reports wait for the hub; let the device reach it first".into(),
            });
            self.close(order);
        }
    }

    /// The machine is idle: an order that was under way has ended. `before` is the machine as it was
    /// until then, if somebody saw it.
    pub(super) fn end_order(&mut self, before: Option<&Machine>) {
        let Some(mut order) = self.order.take() else {
            return;
        };
        order.outcome = order.outcome_in(before, &self.machine);
        if order.outcome.is_none() {
            self.order = Some(order);
            return;
        }
        // What runs already was fetched for nothing, unless it has rotted: then the file mends it.
        let checked = before.is_some_and(|before| matches!(before.state(), State::Checking { .. }));
        if checked && order.outcome == Some(Outcome::Committed) {
            self.suspect_now();
        }
        self.close(order);
    }

    fn close(&mut self, order: Order) {
        self.order = None;
        if let Err(error) = order.save(&self.dir) {
            // The next start ends it once more.
            warn!("cannot write down how `{}` ended: {error}", order.target);
        }
    }
}
