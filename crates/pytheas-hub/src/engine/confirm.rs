//! Actions that wait until somebody at the device has agreed.

use pytheas_api::{
    ActionStatus, DeviceId,
    ddi::{AutoConfirm, Confirmation, ConfirmationFeedback},
};
use pytheas_rollout::Event;

use super::{Change, ENTRIES_MAX, Engine, ReportError, meaning};
use crate::store::{
    self,
    actions::{self, Action},
    devices, rollouts,
};

impl Engine {
    /// Somebody at the device agrees, or does not. What was agreed to may be taken back until the
    /// device has looked at it.
    pub(crate) async fn confirm(
        &self,
        device: &DeviceId,
        id: i64,
        said: &ConfirmationFeedback,
    ) -> Result<(), ReportError> {
        let mut change = self.begin().await?;
        let action = actions::of_device(&mut *change.tx, device, id)
            .await?
            .ok_or(ReportError::Unknown)?;
        let confirmed = said.confirmation == Confirmation::Confirmed;
        let waits = action.status == ActionStatus::Unconfirmed;
        if action.status.is_closed() {
            return Err(ReportError::Closed);
        }
        let undone = !confirmed
            && action.status == ActionStatus::Pending
            && rollouts::wants_confirmation(&mut *change.tx, action.rollout).await?;
        if !waits && !undone {
            return Err(ReportError::Unknown);
        }
        if action.entries >= ENTRIES_MAX && !confirmed {
            return Err(ReportError::TooMany);
        }
        let (status, word) = match confirmed {
            true => (ActionStatus::Pending, "confirmed at the device"),
            false => (ActionStatus::Unconfirmed, "denied at the device"),
        };
        let lines = meaning::said(word, &said.details);
        change.note(&action, status, &lines, None).await?;
        let device = device.clone();
        change.feed(action.rollout, Event::Heard { device }).await?;
        change.commit().await?;
        Ok(())
    }

    /// A device agrees by itself from now on, also to what waits; or no longer does.
    pub(crate) async fn auto_confirm(
        &self,
        device: &DeviceId,
        mut auto: AutoConfirm,
    ) -> store::Result<()> {
        let mut change = self.begin().await?;
        auto.activated_at = auto.active.then_some(change.now_ms);
        devices::set_auto_confirm(&mut change.tx, device, &auto).await?;
        if auto.active {
            let open = actions::open(&mut *change.tx, device).await?;
            for action in open {
                change.confirm_by_itself(&action, &auto).await?;
            }
        }
        change.commit().await
    }
}

impl Change<'_> {
    async fn confirm_by_itself(
        &mut self,
        action: &Action,
        auto: &AutoConfirm,
    ) -> store::Result<()> {
        if action.status != ActionStatus::Unconfirmed {
            return Ok(());
        }
        let by = auto.initiator.as_deref().map(|by| format!(" (`{by}`)"));
        let line = format!("the device agrees by itself{}", by.unwrap_or_default());
        self.note(action, ActionStatus::Pending, &[line], None)
            .await?;
        let device = action.device.clone();
        self.feed(action.rollout, Event::Heard { device }).await
    }
}
