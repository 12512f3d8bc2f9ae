//! Releases in the hub's repository (`GET /api/v1/releases`).

use serde::{Deserialize, Serialize};

/// One release on one platform, as the verified TUF repository describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseView {
    /// The app.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The platform.
    pub platform: String,
    /// `bundle`, …
    pub form: String,
    /// Identity of its tree.
    pub tree: String,
    /// Sum of its files' sizes.
    pub size_bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// The TUF target's name: `greenhouse/1.1.0/linux-x86_64/release.json`.
    pub target: String,
    /// How many older trees have a delta to it.
    pub deltas: u64,
    /// The signed image that boards download, of a MicroPython release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardImageView>,
    /// When it was published, where the repository says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_ms: Option<i64>,
}

/// The signed image of a MicroPython release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BoardImageView {
    /// SHA-256 of the whole image.
    pub sha256: String,
    /// Its length.
    pub size_bytes: u64,
    /// The counter that never goes down on a board.
    pub counter: u32,
}

/// How many devices run one release (`GET /api/v1/releases/in-use`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InUseView {
    /// What they say they run: `greenhouse@1.1.0`.
    pub release: String,
    /// Their platform, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How many accepted devices say so.
    pub devices: u64,
}
