//! Devices and what they were told to do (`/api/v1/devices`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Group};

/// Where a device stands with the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// It asked; nobody has accepted it yet.
    Pending,
    /// It may poll and never did.
    Accepted,
    /// It was heard within the last three poll intervals (and at least 15 s).
    Online,
    /// It was silent for longer.
    Offline,
}

impl DeviceState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// Whether a device runs what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UpdateState {
    /// Nothing was ever assigned.
    None,
    /// An action is open.
    Updating,
    /// The last action succeeded.
    InSync,
    /// The last action failed.
    Error,
}

impl UpdateState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Updating => "updating",
            Self::InSync => "in-sync",
            Self::Error => "error",
        }
    }
}

/// Where one device's action (one assignment of a release) stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ActionStatus {
    /// Assigned; somebody at the device has to agree first.
    Unconfirmed,
    /// Assigned; the device has not asked for it yet.
    Pending,
    /// The device has read it.
    Retrieved,
    /// The device fetches bytes.
    Downloading,
    /// The device stages, verifies or switches.
    Installing,
    /// The new release runs and has to prove itself.
    Probation,
    /// A newer action or a person took it back; the device has not acknowledged yet.
    Cancelling,
    /// Closed: the device runs it.
    Succeeded,
    /// Closed: the device does not run it.
    Failed,
    /// Closed: taken back.
    Cancelled,
}

impl ActionStatus {
    /// All there are, in the order a device passes them.
    pub const ALL: [Self; 10] = [
        Self::Unconfirmed,
        Self::Pending,
        Self::Retrieved,
        Self::Downloading,
        Self::Installing,
        Self::Probation,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Pending => "pending",
            Self::Retrieved => "retrieved",
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Probation => "probation",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing follows it.
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// `POST /api/v1/devices`: a device that does not enrol by itself (SWUpdate, RAUC, Zephyr, …).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceRequest {
    /// Its id (DDI: `controllerId`).
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device_id: DeviceId,
    /// A name for people; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its platform, when it runs Pytheas releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The group whose settings it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub group: Option<Group>,
}

/// The answer to [`DeviceRequest`]: the only time the token is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceToken {
    /// The device, accepted.
    pub device: DeviceView,
    /// For `Authorization: TargetToken …`.
    pub token: String,
    /// First part of its DDI address.
    pub tenant: String,
}

/// One device in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceView {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its platform, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The group whose settings it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub group: Option<Group>,
    /// Where it stands with the hub.
    pub state: DeviceState,
    /// Whether it runs what it should.
    pub update: UpdateState,
    /// What it says it runs: `greenhouse@1.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The further apps it says it runs: `broker@2.0.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The tree it says it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// When it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<i64>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
    /// When it first asked or was made.
    pub created_ms: i64,
    /// Its newest action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionView>,
}

/// `GET /api/v1/devices/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceDetail {
    /// What the list shows.
    pub device: DeviceView,
    /// What the device says of itself.
    pub attributes: BTreeMap<String, String>,
    /// Its actions, newest first, with all messages.
    pub history: Vec<ActionView>,
}

/// One assignment of a release to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionView {
    /// Its number, the one DDI shows.
    pub id: i64,
    /// The rollout it belongs to.
    pub rollout: i64,
    /// What is assigned: `greenhouse@1.1.0`.
    pub release: String,
    /// Where it stands.
    pub status: ActionStatus,
    /// The newest thing the device said, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was assigned.
    pub created_ms: i64,
    /// When it last moved.
    pub updated_ms: i64,
    /// What was said, oldest first; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ActionMessage>,
}

/// One report of a device, or one note of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionMessage {
    /// When the hub got it.
    pub at_ms: i64,
    /// Where the action stood then.
    pub status: ActionStatus,
    /// Lines of text; the first is the short one.
    pub details: Vec<String>,
}
