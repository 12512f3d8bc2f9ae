//! What happens in the hub, as a stream (`GET /api/v1/events`, Server-Sent Events).
//!
//! ```text
//! id: 17
//! data: {"id":17,"at_ms":1760000000000,"kind":"action-changed","device":"gw-1","action":3,"rollout":1,"status":"probation","message":"started 1.1.0"}
//! ```
//! The stream tells that something changed; what it is now, the other calls say. A reader that was
//! too slow gets `missed` and reads everything again.

use serde::{Deserialize, Serialize};

use crate::{ActionStatus, DeviceId, RolloutState};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Counts up while the hub runs.
    pub id: u64,
    /// When.
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventKind {
    /// A new device asked, or was made.
    DeviceEnrolled {
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        device: DeviceId,
    },
    /// A device may poll now.
    DeviceAccepted {
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        device: DeviceId,
    },
    /// A device was removed.
    DeviceRemoved {
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        device: DeviceId,
    },
    /// A device told its attributes, came back, or fell silent.
    DeviceChanged {
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        device: DeviceId,
    },
    /// A device's action moved.
    ActionChanged {
        /// Which device.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        device: DeviceId,
        /// Which action.
        action: i64,
        /// Of which rollout.
        rollout: i64,
        /// Where it stands now.
        status: ActionStatus,
        /// What was said with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A rollout began, moved on, paused or ended.
    RolloutChanged {
        /// Which.
        rollout: i64,
        /// Where it stands now.
        state: RolloutState,
        /// Why it is paused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Settings of some devices changed.
    ConfigChanged {
        /// The newest revision.
        revision: i64,
    },
    /// The repository was published to, or an artifact uploaded.
    ReleasesChanged,
    /// The reader was too slow; this many events are lost to it.
    Missed {
        /// How many.
        count: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Event {
            id: 17,
            at_ms: 1,
            kind: EventKind::RolloutChanged {
                rollout: 2,
                state: RolloutState::Paused,
                reason: Some("`gw-1` failed".into()),
            },
        };
        let json = serde_json::to_string(&event).unwrap();
        insta::assert_snapshot!(json, @r#"{"id":17,"at_ms":1,"kind":"rollout-changed","rollout":2,"state":"paused","reason":"`gw-1` failed"}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
