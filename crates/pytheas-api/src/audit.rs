//! Who changed what (`GET /api/v1/audit`).

use serde::{Deserialize, Serialize};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Counts up.
    pub id: i64,
    /// When.
    pub at_ms: i64,
    /// Who: the token's name, `device dev1`, or `hub`.
    pub actor: String,
    /// What was done: `device.accept`, `rollout.start`, …
    pub action: String,
    /// To what: a device, rollout, token, …
    pub subject: String,
    /// The rest, in words.
    pub detail: String,
}
