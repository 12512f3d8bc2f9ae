//! `pytheas.json`: what the build says about the tree it made; lies at the tree's root.
//!
//! ```json
//! {"format": 1, "name": "greenhouse", "version": "1.1.0", "form": "bundle",
//!  "platform": "linux-x86_64", "entry": "bin/greenhouse",
//!  "health": {"ready": {"kind": "notify"}, "deadline_ms": 30000, "stay_up_ms": 10000},
//!  "interpreter": {"provider": "host", "implementation": "cpython", "version": "3.11.7"}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Health, Hooks, Name, Platform, RelPath, Version, compat::Rules};

/// Name of the record's file at the root of every built tree.
pub const RECORD_FILE: &str = "pytheas.json";

/// Which interpreter a tree carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterRecord {
    /// The provider: `host`, `python-build-standalone`, …
    pub provider: String,
    /// `cpython`.
    pub implementation: String,
    /// `3.11.7`.
    pub version: String,
    /// SHA-256 of the archive it came from, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<crate::Sha256>,
}

/// One thing operators may set (`[tool.pytheas.config]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigOption {
    /// `string`, `integer`, `number`, `boolean` or `duration`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Default, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Environment variable the app reads it from.
    pub env: String,
    /// One line for operators.
    #[serde(default)]
    pub help: String,
}

/// How the release takes part in updates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateRules {
    /// Where it may run.
    pub rules: Rules,
    /// What is run around an update.
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
}

impl UpdateRules {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The content of `pytheas.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Format of this record: 1.
    pub format: u32,
    /// The app.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// The form the tree was built in: `bundle`, …
    pub form: String,
    /// The platform the tree runs on.
    pub platform: Platform,
    /// What starts the app.
    pub entry: RelPath,
    /// How the started app proves that it works.
    #[serde(default)]
    pub health: Health,
    /// What operators may set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, ConfigOption>,
    /// The interpreter inside, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<InterpreterRecord>,
    /// How it takes part in updates.
    #[serde(default, skip_serializing_if = "UpdateRules::is_empty")]
    pub update: UpdateRules,
}

/// A `pytheas.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON of the expected shape.
    #[error("`{RECORD_FILE}` does not parse")]
    Parse(#[source] serde_json::Error),
    /// Written by a newer Pytheas.
    #[error("`{RECORD_FILE}` has format {0}; this version of pytheas reads format 1")]
    Format(u32),
}

impl BuildRecord {
    /// The record as it is stored: pretty JSON with a final newline, keys in a fixed order.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a record has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// [`RecordError`] when it does not parse or has another format.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(bytes).map_err(RecordError::Parse)?;
        if record.format == 1 {
            Ok(record)
        } else {
            Err(RecordError::Format(record.format))
        }
    }
}
