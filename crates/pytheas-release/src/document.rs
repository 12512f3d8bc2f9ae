//! `release.json`: the signed description of one release on one platform.
//!
//! It is a TUF target named `NAME/VERSION/PLATFORM/release.json`; everything it names is bound by
//! hash, so whatever it leads to is as genuine as the document itself.
//!
//! ```json
//! {"format": 1, "name": "greenhouse", "version": "1.1.0", "form": "bundle",
//!  "platform": "linux-x86_64", "entry": "bin/greenhouse",
//!  "tree":  {"id": "9f…", "size_bytes": 60311422, "files": 2301, "document": {"sha256": "…", "size_bytes": 91022}},
//!  "index": {"sha256": "…", "size_bytes": 60110},
//!  "deltas": {"5c… (the tree a device has)": {"sha256": "…", "size_bytes": 4211}},
//!  "requires": {}, "health": {"ready": {"kind": "notify"}, "deadline_ms": 30000, "stay_up_ms": 10000}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ConfigOption, Health, InterpreterRecord, Name, Platform, RelPath, ReleaseRef, Sha256, TreeId,
    Version, compat::Rules,
};

/// A file of the content store: `blobs/<first two digits>/<sha256>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Hash of the file as it is stored, and its name.
    pub sha256: Sha256,
    /// Length of the file as it is stored.
    pub size_bytes: u64,
}

/// The tree a release consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRef {
    /// Identity of the tree.
    pub id: TreeId,
    /// Sum of its files' sizes.
    pub size_bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// Its canonical encoding, compressed with zstd.
    pub document: BlobRef,
}

/// What boards download of a MicroPython release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardImage {
    /// The signed image, see [`crate::board`].
    #[serde(flatten)]
    pub image: BlobRef,
    /// The counter in its manifest.
    pub counter: u32,
    /// `lines.json`, which maps tracebacks of the image back to sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<BlobRef>,
}

/// The content of `release.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Format of this document: 1.
    pub format: u32,
    /// The app.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// The form: `bundle`, …
    pub form: String,
    /// The platform it runs on.
    pub platform: Platform,
    /// What starts the app, inside the tree.
    pub entry: RelPath,
    /// The tree.
    pub tree: TreeRef,
    /// Where each object of the tree lies in the packs.
    pub index: BlobRef,
    /// Deltas that were made at publish: from the tree a device has.
    #[serde(default)]
    pub deltas: BTreeMap<TreeId, BlobRef>,
    /// What must be there for this release, see [`crate::compat`]. An agent refuses a release with
    /// a key it does not know.
    #[serde(default)]
    pub requires: BTreeMap<String, String>,
    /// Components that must not be there: name → versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conflicts: BTreeMap<String, String>,
    /// See [`Rules::allow_downgrade`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_downgrade: bool,
    /// How the started app proves that it works.
    #[serde(default)]
    pub health: Health,
    /// What operators may set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, ConfigOption>,
    /// The interpreter inside, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<InterpreterRecord>,
    /// Where it was built from: a DSSE envelope around an in-toto statement. Readers from before
    /// this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<BlobRef>,
    /// Its bill of materials (CycloneDX, JSON). Readers from before this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<BlobRef>,
    /// For a MicroPython release, what boards get. Readers from before this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardImage>,
}

/// A release document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the expected shape.
    #[error("release document `{target}` does not parse")]
    Parse {
        /// The TUF target.
        target: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Written by a newer Pytheas.
    #[error("release document `{target}` has format {format}; this version reads format 1")]
    Format {
        /// The TUF target.
        target: String,
        /// The format it has.
        format: u32,
    },
    /// It speaks of another release than its name says.
    #[error("release document `{target}` describes `{described}`")]
    Mismatch {
        /// The TUF target.
        target: String,
        /// What the document says it is.
        described: String,
    },
}

/// The TUF target's name of a release: `NAME/VERSION/PLATFORM/release.json`.
pub fn target_name(name: &Name, version: &Version, platform: &Platform) -> String {
    format!("{name}/{version}/{platform}/release.json")
}

impl Release {
    /// Name and version.
    pub fn reference(&self) -> ReleaseRef {
        ReleaseRef {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }

    /// What it says about where it may run.
    pub fn rules(&self) -> Rules {
        Rules {
            requires: self.requires.clone(),
            conflicts: self.conflicts.clone(),
            allow_downgrade: self.allow_downgrade,
        }
    }

    /// Name of the TUF target this document is published as.
    pub fn target_name(&self) -> String {
        target_name(&self.name, &self.version, &self.platform)
    }

    /// The document as it is stored: pretty JSON, keys in a fixed order, a final newline.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("keys are strings");
        bytes.push(b'\n');
        bytes
    }

    /// The document in `bytes`, which was fetched as `target`.
    ///
    /// # Errors
    /// [`DocumentError`] when it does not parse, has another format, or is another release's.
    pub fn parse(target: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        let release: Self =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Parse {
                target: target.to_owned(),
                source,
            })?;
        if release.format != 1 {
            return Err(DocumentError::Format {
                target: target.to_owned(),
                format: release.format,
            });
        }
        if release.target_name() != target {
            return Err(DocumentError::Mismatch {
                target: target.to_owned(),
                described: release.target_name(),
            });
        }
        Ok(release)
    }
}
