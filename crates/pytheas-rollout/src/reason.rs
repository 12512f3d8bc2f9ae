//! Why a rollout is paused or aborted, in a form that is stored and shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a rollout does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// More failures than allowed; the device is the one whose failure was too many.
    Failures {
        /// Counted from 0.
        group: usize,
        /// The device.
        device: String,
        /// What it said.
        error: String,
        /// Failures in the group that nobody has accepted yet.
        failed: u32,
        /// Devices in the group.
        total: u32,
        /// The error threshold.
        allowed_percent: u8,
    },
    /// All devices of a group ended, too few of them well.
    FellShort {
        /// Counted from 0.
        group: usize,
        /// So many did.
        succeeded: u32,
        /// Of so many.
        total: u32,
        /// The success threshold.
        needed_percent: u8,
    },
    /// A person said so.
    Person {
        /// Who.
        by: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures {
                group,
                device,
                error,
                failed,
                total,
                allowed_percent,
            } => write!(
                f,
                "`{device}` failed: {error} (group {}: {failed} of {total} failed, {allowed_percent}% allowed)",
                group + 1
            ),
            Self::FellShort {
                group,
                succeeded,
                total,
                needed_percent,
            } => write!(
                f,
                "group {} ended with {succeeded} of {total} succeeded, {needed_percent}% needed",
                group + 1
            ),
            Self::Person { by } => write!(f, "by {by}"),
        }
    }
}
