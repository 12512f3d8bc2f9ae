//! Plain artifacts: software modules that are no Pytheas releases, for SWUpdate, RAUC, Zephyr.
//!
//! `POST /api/v1/artifacts/{name}/{version}/{filename}?part=os`, the file as the body, answers
//! [`ArtifactFile`]; a rollout names them as `"artifact": "name@version"`.

use serde::{Deserialize, Serialize};

/// One uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactFile {
    /// Its name.
    pub filename: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-1, hex; DDI clients ask for it.
    pub sha1: String,
    /// MD5, hex; DDI clients ask for it.
    pub md5: String,
    /// SHA-256, hex.
    pub sha256: String,
}

/// One software module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactModule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// DDI's `part`: `os`, `bApp`, `jvm`, …
    pub part: String,
    /// Its files.
    pub files: Vec<ArtifactFile>,
}
