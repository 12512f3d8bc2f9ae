//! The ledger of a channel: which tag was seen as which commit, kept through power cuts.
//!
//! ```json
//! {"format": 1, "url": "https://git.example/app.git", "newest": "v1.1.0",
//!  "tags": {"v1.1.0": {"commit": "9f…", "fate": "released", "signed": "Good \"git\" signature …"}}}
//! ```

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use super::GitError;

/// The content of `follow.json` (format 1).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ledger {
    format: u32,
    url: String,
    /// The tag released last.
    #[serde(default)]
    pub(super) newest: Option<String>,
    /// Every tag that was seen.
    #[serde(default)]
    pub(super) tags: BTreeMap<String, Seen>,
}

/// What is known of a tag.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The commit it was when it was seen first.
    pub(super) commit: String,
    pub(super) fate: Fate,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// What git said about its signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<String>,
}

impl Seen {
    pub(super) fn new(commit: &str, fate: Fate) -> Self {
        Self {
            commit: commit.to_owned(),
            fate,
            why: None,
            signed: None,
        }
    }
}

/// What became of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    /// It is to be a release.
    Accepted,
    /// It is a release.
    Released,
    /// It was older than the first one that was taken.
    Passed,
    /// It is not.
    Refused,
}

impl Ledger {
    pub(super) fn load(dir: &Path, url: &str) -> Result<Self, GitError> {
        let path = dir.join("follow.json");
        let bytes = match crate::paths::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    format: 1,
                    url: url.to_owned(),
                    newest: None,
                    tags: BTreeMap::new(),
                });
            }
            other => other.map_err(GitError::io("read", &path))?,
        };
        let ledger: Self = serde_json::from_slice(&bytes).map_err(|source| GitError::Ledger {
            path: path.clone(),
            source,
        })?;
        if ledger.format != 1 {
            let source = serde::de::Error::custom(format!(
                "it has format {}; this version reads format 1",
                ledger.format
            ));
            return Err(GitError::Ledger { path, source });
        }
        if ledger.url != url {
            return Err(GitError::Other {
                path,
                of: ledger.url,
                asked: url.to_owned(),
            });
        }
        Ok(ledger)
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), GitError> {
        let path = dir.join("follow.json");
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| GitError::Ledger {
            path: path.clone(),
            source,
        })?;
        pytheas_durable::replace(&path, &bytes).map_err(GitError::io("write", &path))
    }
}
