//! hawkBit's Direct Device Integration API, v1: what a device and the hub say to each other.
//!
//! ```text
//! GET  /{tenant}/controller/v1/{id}                              PollRoot
//! PUT  /{tenant}/controller/v1/{id}/configData                   ConfigData
//! GET  /{tenant}/controller/v1/{id}/deploymentBase/{action}      DeploymentBase
//! POST /{tenant}/controller/v1/{id}/deploymentBase/{action}/feedback    Feedback
//! GET  /{tenant}/controller/v1/{id}/cancelAction/{action}        CancelAction
//! POST /{tenant}/controller/v1/{id}/cancelAction/{action}/feedback      Feedback
//! GET  /{tenant}/controller/v1/{id}/installedBase/{action}       DeploymentBase
//! …                                  /confirmationBase            [`ConfirmationRoot`]
//! ```
//! Every request carries `Authorization: TargetToken <token>`. Interface facts: hawkBit's sources
//! of August 2026 and three clients (SWUpdate, rauc-hawkbit-updater, Zephyr).
//!
//! A Pytheas release is one chunk whose metadata names its TUF target ([`TARGET_KEY`]); the agent
//! takes only that name from here and fetches everything from `/repo/` under TUF. Its progress is
//! `status.code` of [`Feedback`] ([`Progress`]).

mod confirmation;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::DeviceId;

pub use confirmation::{
    ActivateAutoConfirm, AutoConfirm, Confirmation, ConfirmationBase, ConfirmationFeedback,
    ConfirmationLinks, ConfirmationRoot,
};

/// Chunk metadata: the release's TUF target, `greenhouse/1.1.0/linux-x86_64/release.json`.
pub const TARGET_KEY: &str = "pytheas.target";
/// Chunk metadata: `true` when the release may be older than what runs.
pub const DOWNGRADE_KEY: &str = "pytheas.allow-downgrade";
/// Chunk metadata: the format of the release document, `1`.
pub const FORMAT_KEY: &str = "pytheas.format";
/// `part` of the chunk of a Pytheas release.
pub const RELEASE_PART: &str = "bApp";

/// Attribute: the agent's version.
pub const ATTRIBUTE_AGENT: &str = "pytheas.agent";
/// Attribute: what runs, `greenhouse@1.1.0`.
pub const ATTRIBUTE_RELEASE: &str = "pytheas.release";
/// Attribute: the tree that runs.
pub const ATTRIBUTE_TREE: &str = "pytheas.tree";
/// Attribute: the device's model.
pub const ATTRIBUTE_MODEL: &str = "pytheas.model";
/// Attributes: what runs beside it, `pytheas.component.broker` = `broker@2.0.0`.
pub const ATTRIBUTE_COMPONENT: &str = "pytheas.component.";
/// Attributes: the boards on the device's ports, `pytheas.board.node-left` = `sensor-node 1.2.0 …`.
pub const ATTRIBUTE_BOARD: &str = "pytheas.board.";
/// Attributes: the platform of the boards that run an app, by the app:
/// `pytheas.board-app.sensor-node` = `micropython-armv7m`. Its releases go to the boards.
pub const ATTRIBUTE_BOARD_APP: &str = "pytheas.board-app.";
/// Attributes: the settings that a board on the device's ports has, by its name, as [`ATTRIBUTE_CONFIG`]:
/// `pytheas.board-config.node-left` = `3-8b0a5b34`.
pub const ATTRIBUTE_BOARD_CONFIG: &str = "pytheas.board-config.";
/// Attributes: settings such a board does not take: their revision, a blank, and why.
pub const ATTRIBUTE_BOARD_CONFIG_REFUSED: &str = "pytheas.board-config-refused.";
/// Attribute: which settings the device has applied, [`PollConfig::revision`] as the hub sent it;
/// [`NO_REVISION`] before the first. A device that tells it can take settings, others get none.
pub const ATTRIBUTE_CONFIG: &str = "pytheas.config";
/// Attribute: settings the device does not apply: their revision, a blank, and why.
pub const ATTRIBUTE_CONFIG_REFUSED: &str = "pytheas.config-refused";
/// Attributes: what the app wrote last before it was given up, `pytheas.config-log.0` to `.7`.
pub const ATTRIBUTE_CONFIG_LOG: &str = "pytheas.config-log.";
/// [`ATTRIBUTE_CONFIG`] of a device that has applied no settings of the hub.
pub const NO_REVISION: &str = "0";
/// Attribute: the device's platform.
pub const ATTRIBUTE_PLATFORM: &str = "pytheas.platform";

/// Path of a device's poll root.
pub fn root_path(tenant: &str, device: &DeviceId) -> String {
    format!("/{tenant}/controller/v1/{device}")
}

/// The value of a device's `Authorization` header.
pub fn target_token(token: &str) -> String {
    format!("TargetToken {token}")
}

/// Where our agent stands within an action, in [`Status::code`] of a `proceeding` feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Progress {
    /// Fetches metadata and bytes.
    Downloading = 1,
    /// The new tree is on disk and verified.
    Staged = 2,
    /// The new release is the current one.
    Switched = 3,
    /// The new release runs and has to prove itself.
    Probation = 4,
}

impl Progress {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The progress of this number.
    pub fn from_code(code: i32) -> Option<Self> {
        [
            Self::Downloading,
            Self::Staged,
            Self::Switched,
            Self::Probation,
        ]
        .into_iter()
        .find(|progress| progress.code() == code)
    }
}

/// One HAL link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Absolute address.
    pub href: String,
}

impl Link {
    /// A link to `href`.
    pub fn to(href: impl Into<String>) -> Self {
        Self { href: href.into() }
    }
}

/// Answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollRoot {
    /// When to come again.
    #[serde(default)]
    pub config: PollConfig,
    /// What to do.
    #[serde(
        rename = "_links",
        default,
        skip_serializing_if = "PollLinks::is_empty"
    )]
    pub links: PollLinks,
}

/// See [`Polling`]; and, beyond hawkBit, the app's settings while the device runs with others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollConfig {
    /// When to come again.
    #[serde(default)]
    pub polling: Polling,
    /// The app's settings, whole; only together with `revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<crate::Settings>,
    /// What the device tells in [`ATTRIBUTE_CONFIG`] once it has applied them; opaque to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// When to come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polling {
    /// `HH:MM:SS`; kept as text, since other servers also send ISO 8601 (`PT36H`).
    pub sleep: String,
}

impl Default for Polling {
    fn default() -> Self {
        Self::every(Duration::from_secs(300))
    }
}

impl Polling {
    /// `HH:MM:SS` of `interval`, at least one second and less than a day, as clients want it.
    pub fn every(interval: Duration) -> Self {
        let s = interval.as_secs().clamp(1, 86_399);
        Self {
            sleep: format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
        }
    }

    /// The interval, from `HH:MM:SS` or `P1DT2H3M4S`; nothing for other texts and for zero.
    pub fn interval(&self) -> Option<Duration> {
        let seconds = clock(&self.sleep).or_else(|| iso_8601(&self.sleep))?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

fn clock(text: &str) -> Option<u64> {
    let mut parts = text
        .split(':')
        .map(|part| part.parse::<u64>().ok().filter(|n| *n < 100));
    let seconds = parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??;
    parts.next().is_none().then_some(seconds)
}

fn iso_8601(text: &str) -> Option<u64> {
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for c in text.strip_prefix('P')?.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'T' => continue,
            'D' => 86_400,
            'H' => 3600,
            'M' => 60,
            'S' => 1,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut number).parse().ok()?;
        seconds = seconds.checked_add(count.checked_mul(unit)?)?;
    }
    number.is_empty().then_some(seconds)
}

/// What to do, as links; at most one of the first three is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollLinks {
    /// Something to install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_base: Option<Link>,
    /// Something to give up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_action: Option<Link>,
    /// Something a person at the device has to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation_base: Option<Link>,
    /// What was installed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_base: Option<Link>,
    /// The hub wants the attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_data: Option<Link>,
}

impl PollLinks {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How the attributes are merged into those the hub has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeMode {
    /// Add and overwrite.
    #[default]
    Merge,
    /// These and no others.
    Replace,
    /// Remove those named.
    Remove,
}

/// The device's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigData {
    /// How they are merged; absent means [`MergeMode::Merge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MergeMode>,
    /// Key and value, each at most 128 characters.
    pub data: BTreeMap<String, String>,
}

/// What to install (or was installed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentBase {
    /// The action's number, as text.
    pub id: String,
    /// What and how.
    pub deployment: Deployment,
    /// What the device said so far; only with `?actionHistory=n`.
    #[serde(
        rename = "actionHistory",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub action_history: Option<ActionHistory>,
}

/// Whether the device has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handling {
    /// Not now.
    Skip,
    /// When it suits.
    Attempt,
    /// Now.
    Forced,
}

/// What and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Whether to download.
    pub download: Handling,
    /// Whether to install. SWUpdate takes `skip` as done, so our hub never sends it.
    pub update: Handling,
    /// `available` or `unavailable`; absent without a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<String>,
    /// The software modules.
    pub chunks: Vec<Chunk>,
}

/// One software module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its kind: `os`, `bApp`, `jvm`, …
    pub part: String,
    /// Its version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
    /// Its files.
    pub artifacts: Vec<Artifact>,
}

impl Chunk {
    /// The value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_str())
    }
}

/// One metadata entry of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// One file of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub filename: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// Where it is.
    #[serde(rename = "_links", default)]
    pub links: ArtifactLinks,
}

/// Hashes in lower-case hex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hashes {
    /// SHA-1.
    pub sha1: String,
    /// MD5.
    pub md5: String,
    /// SHA-256.
    pub sha256: String,
}

/// Where a file is; our hub sends all four, the same address for both schemes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactLinks {
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Link>,
    /// Its MD5 sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5sum: Option<Link>,
    /// The file without TLS.
    #[serde(
        rename = "download-http",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub download_http: Option<Link>,
    /// Its MD5 sum without TLS.
    #[serde(
        rename = "md5sum-http",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub md5sum_http: Option<Link>,
}

impl ArtifactLinks {
    /// The better link to the file.
    pub fn file(&self) -> Option<&Link> {
        self.download.as_ref().or(self.download_http.as_ref())
    }
}

/// What the device said so far, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionHistory {
    /// hawkBit's status word: `RETRIEVED`, `RUNNING`, `FINISHED`, …
    pub status: String,
    /// Messages.
    pub messages: Vec<String>,
}

/// What to give up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelAction {
    /// The action's number, as text.
    pub id: String,
    /// The same number once more.
    pub cancel_action: CancelTarget,
}

/// See [`CancelAction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelTarget {
    /// The action to give up.
    pub stop_id: String,
}

/// What the device is doing with an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// Ended; the result says how.
    Closed,
    /// Goes on.
    Proceeding,
    /// Given up on the device.
    Canceled,
    /// Put off.
    Scheduled,
    /// Refused.
    Rejected,
    /// Goes on after a break.
    Resumed,
    /// All bytes are there.
    Downloaded,
    /// Fetches bytes.
    Download,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finished {
    /// Well.
    Success,
    /// Badly.
    Failure,
    /// Not yet; on a closing feedback the same as well.
    None,
}

/// A device's report on an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The device's clock, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// What it says.
    pub status: Status,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the device is doing.
    pub execution: Execution,
    /// The device's own code; our agent's are [`Progress`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Lines of text; the first is the short one.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub details: Vec<String>,
    /// How it ended, and how far it is.
    pub result: Outcome,
}

/// How it ended, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub finished: Finished,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Steps>,
}

/// `cnt` of `of` steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Steps done.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cnt: i64,
    /// Of so many.
    #[serde(default, deserialize_with = "null_as_default")]
    pub of: i64,
}

impl Feedback {
    /// A report without details.
    pub fn new(execution: Execution, finished: Finished) -> Self {
        Self {
            timestamp: None,
            status: Status {
                execution,
                code: None,
                details: Vec::new(),
                result: Outcome {
                    finished,
                    progress: None,
                },
            },
        }
    }

    /// Our agent's report that it goes on.
    pub fn proceeding(progress: Progress) -> Self {
        let mut feedback = Self::new(Execution::Proceeding, Finished::None);
        feedback.status.code = Some(progress.code());
        feedback
    }

    /// With one more line of text.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.status.details.push(line.into());
        self
    }

    /// With these further lines of text.
    #[must_use]
    pub fn details<T: Into<String>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        self.status
            .details
            .extend(lines.into_iter().map(Into::into));
        self
    }

    /// Whether nothing follows it.
    pub fn is_closing(&self) -> bool {
        self.status.execution == Execution::Closed
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
