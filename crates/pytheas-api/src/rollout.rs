//! Rollouts: one release or artifact to many devices, group by group (`/api/v1/rollouts`).
//!
//! ```json
//! {"release": "greenhouse@1.1.0", "groups": ["1", "10%", "100%"],
//!  "success_threshold": 100, "error_threshold": 0, "silence_deadline_s": 86400}
//! ```

use std::{fmt, str::FromStr};

use pytheas_release::ReleaseRef;
use serde::{Deserialize, Serialize};

use crate::{ActionStatus, DeviceId};

/// How far a group reaches: `3` (so many further devices) or `10%` (until that share of all
/// fitting devices, rounded up, is in this or an earlier group; `100%` takes the rest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GroupSize {
    /// So many further devices, at least 1.
    Count(u32),
    /// Until this share of all fitting devices is reached, 1 to 100.
    Percent(u8),
}

/// A text that is no group size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a group size: a number of devices such as `3`, or a share such as `10%`")]
pub struct GroupSizeError(String);

impl FromStr for GroupSize {
    type Err = GroupSizeError;

    fn from_str(text: &str) -> Result<Self, GroupSizeError> {
        let wrong = || GroupSizeError(text.chars().take(40).collect());
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        match (text.ends_with('%'), number) {
            (_, 0) => Err(wrong()),
            (false, count) => Ok(Self::Count(count)),
            (true, percent @ 1..=100) => Ok(Self::Percent(percent as u8)),
            (true, _) => Err(wrong()),
        }
    }
}

impl TryFrom<String> for GroupSize {
    type Error = GroupSizeError;

    fn try_from(text: String) -> Result<Self, GroupSizeError> {
        text.parse()
    }
}

impl From<GroupSize> for String {
    fn from(size: GroupSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// `POST /api/v1/rollouts`: exactly one of `release` and `artifact`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// A release of the repository: `greenhouse@1.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub release: Option<ReleaseRef>,
    /// Further releases that are to run together with `release`: devices switch to all of them or
    /// to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub also: Vec<ReleaseRef>,
    /// Whether devices may go back from a newer release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_downgrade: bool,
    /// Whether somebody at each device has to agree before it fetches anything (DDI's
    /// confirmation). Clients that do not know of it see no update.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// An uploaded artifact: `firmware@7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub artifact: Option<ReleaseRef>,
    /// The devices; absent: all accepted ones that fit (the release's platforms; for an artifact,
    /// devices without a platform). Their order is the order of the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub devices: Option<Vec<DeviceId>>,
    /// The groups, one after another. Devices that no group reaches are not in the rollout.
    #[serde(default = "one_group")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub groups: Vec<GroupSize>,
    /// Percent of a group that must succeed before the next one opens, 0 to 100.
    #[serde(default = "all")]
    pub success_threshold: u8,
    /// The rollout pauses when more than this percent of a group failed, 0 to 100.
    #[serde(default)]
    pub error_threshold: u8,
    /// A device that says nothing for so long counts as failed.
    #[serde(default = "one_day")]
    pub silence_deadline_s: u64,
}

fn one_group() -> Vec<GroupSize> {
    vec![GroupSize::Percent(100)]
}

fn all() -> u8 {
    100
}

fn one_day() -> u64 {
    86_400
}

impl RolloutRequest {
    /// One group of all fitting devices, with the default thresholds.
    pub fn release(release: ReleaseRef) -> Self {
        Self {
            release: Some(release),
            also: Vec::new(),
            allow_downgrade: false,
            confirm: false,
            artifact: None,
            devices: None,
            groups: one_group(),
            success_threshold: all(),
            error_threshold: 0,
            silence_deadline_s: one_day(),
        }
    }

    /// As [`Self::release`], for an uploaded artifact.
    pub fn artifact(artifact: ReleaseRef) -> Self {
        Self {
            artifact: Some(artifact.clone()),
            release: None,
            ..Self::release(artifact)
        }
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Devices of the opened groups update.
    Running,
    /// Nothing new starts, see the reason; what was begun goes on.
    Paused,
    /// Every device ended.
    Finished,
    /// Taken back for every device that had not ended.
    Aborted,
}

impl RolloutState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
        }
    }
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GroupState {
    /// An earlier group has to succeed first.
    Waiting,
    /// Its devices update.
    Open,
    /// All its devices ended, and enough of them well.
    Done,
    /// All its devices ended, too many of them badly.
    Failed,
}

impl GroupState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One group's progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupView {
    /// As it was asked for: `10%`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub size: GroupSize,
    /// Where it stands.
    pub state: GroupState,
    /// Devices in it.
    pub total: u32,
    /// Not started.
    pub waiting: u32,
    /// Started, not ended.
    pub active: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly, or silent for too long.
    pub failed: u32,
    /// Taken back.
    pub cancelled: u32,
}

/// One rollout in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutView {
    /// Its number.
    pub id: i64,
    /// What is rolled out, `greenhouse@1.1.0`; several with `, ` between them.
    pub release: String,
    /// Whether devices may go back from a newer release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_downgrade: bool,
    /// Whether somebody at each device has to agree first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Whether that is an uploaded artifact and no Pytheas release.
    pub is_artifact: bool,
    /// Where it stands.
    pub state: RolloutState,
    /// Why it is paused or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who started it.
    pub created_by: String,
    /// When.
    pub created_ms: i64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// See [`RolloutRequest::success_threshold`].
    pub success_threshold: u8,
    /// See [`RolloutRequest::error_threshold`].
    pub error_threshold: u8,
    /// See [`RolloutRequest::silence_deadline_s`].
    pub silence_deadline_s: u64,
    /// Its groups.
    pub groups: Vec<GroupView>,
}

impl RolloutView {
    /// Sum over the groups.
    pub fn sum(&self, count: impl Fn(&GroupView) -> u32) -> u32 {
        self.groups.iter().map(count).sum()
    }
}

/// One device of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutDevice {
    /// Which.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device: DeviceId,
    /// Its group, counted from 0.
    pub group: u32,
    /// Its action; absent until its group opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<i64>,
    /// Where it stands; `pending` until its group opens.
    pub status: ActionStatus,
    /// The newest thing it said, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `GET /api/v1/rollouts/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutDetail {
    /// What the list shows.
    pub rollout: RolloutView,
    /// Its devices, in the order of the groups.
    pub devices: Vec<RolloutDevice>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_sizes_are_counts_or_shares() {
        for (text, expected) in [
            ("1", Ok(GroupSize::Count(1))),
            ("10%", Ok(GroupSize::Percent(10))),
            ("100%", Ok(GroupSize::Percent(100))),
            ("0", Err(())),
            ("0%", Err(())),
            ("101%", Err(())),
            ("%", Err(())),
            ("+1", Err(())),
            ("", Err(())),
            ("4294967296", Err(())),
        ] {
            assert_eq!(
                text.parse::<GroupSize>().map_err(|_| ()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_request_needs_only_the_release() {
        let request: RolloutRequest =
            serde_json::from_str(r#"{"release":"greenhouse@1.1.0"}"#).unwrap();
        assert_eq!(
            request,
            RolloutRequest::release("greenhouse@1.1.0".parse().unwrap())
        );
        let wrong = serde_json::from_str::<RolloutRequest>(r#"{"releese":"a@1"}"#).unwrap_err();
        assert!(wrong.to_string().contains("releese"), "{wrong}");
    }
}
