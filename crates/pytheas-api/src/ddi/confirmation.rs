//! DDI's confirmation flow: somebody at the device agrees before anything is fetched.
//!
//! ```text
//! GET  …/confirmationBase                          ConfirmationRoot
//! GET  …/confirmationBase/{action}                 ConfirmationBase
//! POST …/confirmationBase/{action}/feedback        ConfirmationFeedback
//! POST …/confirmationBase/activateAutoConfirm      ActivateAutoConfirm (or nothing)
//! POST …/confirmationBase/deactivateAutoConfirm
//! ```
//! While an action waits, a poll shows `confirmationBase` instead of `deploymentBase`.

use serde::{Deserialize, Serialize};

use super::{ActionHistory, Deployment, Link};

/// Whether the device agrees by itself, and what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationRoot {
    /// Whether it agrees by itself.
    pub auto_confirm: AutoConfirm,
    /// What waits, and how the former is changed.
    #[serde(rename = "_links")]
    pub links: ConfirmationLinks,
}

/// Whether a device agrees by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoConfirm {
    /// Whether it does.
    pub active: bool,
    /// Who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Since when, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<i64>,
}

/// See [`ConfirmationRoot`]; one of the first two is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationLinks {
    /// Agree by itself from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activate_auto_confirm: Option<Link>,
    /// No longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_auto_confirm: Option<Link>,
    /// What waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation_base: Option<Link>,
}

/// What waits to be agreed to: a deployment under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationBase {
    /// The action's number, as text.
    pub id: String,
    /// What would be installed.
    pub confirmation: Deployment,
    /// What the device said so far; only with `?actionHistory=n`.
    #[serde(
        rename = "actionHistory",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub action_history: Option<ActionHistory>,
}

/// What somebody at the device says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirmation {
    /// Install it.
    Confirmed,
    /// Not now: the action goes on waiting.
    Denied,
}

/// A device's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationFeedback {
    /// The answer.
    pub confirmation: Confirmation,
    /// The device's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Lines of text.
    #[serde(
        default,
        deserialize_with = "super::null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub details: Vec<String>,
}

/// A device that agrees by itself from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivateAutoConfirm {
    /// Who says so.
    #[serde(default)]
    pub initiator: Option<String>,
    /// Why.
    #[serde(default)]
    pub remark: Option<String>,
}
