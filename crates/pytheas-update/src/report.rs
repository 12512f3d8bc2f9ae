//! What the device tells the hub when an action ends, and what it remembers about failures.

use pytheas_release::{ReleaseRef, TreeId};
use serde::{Deserialize, Serialize};

use crate::ActionId;

/// Longest message kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 2000;
/// Most log lines kept with a failure; hawkBit takes 50 messages in one feedback.
const MAX_LOG_LINES: usize = 40;
/// Longest log line kept, in bytes.
const MAX_LINE_BYTES: usize = 500;

/// The kind of a failure, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Signature, expiry, version or hash of what was offered is wrong.
    Untrusted,
    /// The release does not fit this device or this agent.
    Incompatible,
    /// There is no room for it.
    NoSpace,
    /// Its content did not arrive, or not whole.
    Content,
    /// A file operation failed on the device.
    Device,
    /// The app ended before it proved that it works.
    Died,
    /// The app did not prove in time that it works.
    NotReady,
    /// A hook of the release failed, or took too long.
    Hook,
    /// Another deployment took its place.
    Superseded,
    /// What another version of the agent has written; kept as it is.
    #[serde(untagged)]
    Other(String),
}

/// Why an update did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    reason: Reason,
    message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
}

impl Failure {
    /// A failure with its explanation; what is too long for a report is cut.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: cut(message.into(), MAX_MESSAGE_BYTES),
            log: Vec::new(),
        }
    }

    /// The same failure with the app's last log lines, the newest of them when there are too many.
    #[must_use]
    pub fn with_log(mut self, lines: Vec<String>) -> Self {
        let skip = lines.len().saturating_sub(MAX_LOG_LINES);
        self.log = lines
            .into_iter()
            .skip(skip)
            .map(|line| cut(line, MAX_LINE_BYTES))
            .collect();
        self
    }

    /// The kind of failure.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// One line or a few for people: what failed, on what, why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The app's last log lines, oldest first.
    pub fn log(&self) -> &[String] {
        &self.log
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max)
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The release runs and is committed.
    Succeeded {
        /// For people.
        message: String,
    },
    /// It does not; the release that ran before runs.
    Failed {
        /// Why.
        because: Failure,
    },
    /// The action was given up because the hub asked for it.
    Cancelled,
    /// The hub asked too late to give the action up: it goes on.
    CancelRejected,
}

/// A report that must reach the hub, kept on disk until it has acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The action.
    pub action: ActionId,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A deployment that failed here; the same action is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The action, unless an operator at the device asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionId>,
    /// The tree, once it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeId>,
    /// The release, once it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseRef>,
    /// Why.
    pub because: Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_stay_small_enough_for_one_report() {
        let failure = Failure::new(Reason::Died, "é".repeat(5000)).with_log(
            (0..1000)
                .map(|i| format!("{i} {}", "x".repeat(5000)))
                .collect(),
        );
        assert!(failure.message().len() <= MAX_MESSAGE_BYTES + '…'.len_utf8());
        assert_eq!(failure.log().len(), MAX_LOG_LINES);
        assert!(
            failure
                .log()
                .iter()
                .all(|line| line.len() <= MAX_LINE_BYTES + 3)
        );
        assert!(
            failure.log()[MAX_LOG_LINES - 1].starts_with("999 "),
            "the newest are kept"
        );
    }
}
