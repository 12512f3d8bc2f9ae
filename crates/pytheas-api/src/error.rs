//! What every failed REST call answers.
//!
//! ```json
//! {"error": {"code": "unknown-device", "message": "no device `dev9`", "help": "`pytheas device list` shows them"}}
//! ```

use serde::{Deserialize, Serialize};

/// The body of a failed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What failed.
    pub error: ErrorDetail,
}

/// What failed, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// A word for programs; does not change: `unknown-device`.
    pub code: String,
    /// What failed, on what, why.
    pub message: String,
    /// What to do about it, where the hub knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}
