//! The words on the wire: hawkBit's device API (DDI v1), our REST API (v1), enrolment, events.
//!
//! Types only, no I/O: the hub speaks them as a server, the agent, the command and the load
//! generator as clients, so there is one truth. Times are milliseconds since 1970 (`*_ms`),
//! identifiers are parsed at the edge ([`DeviceId`], [`pytheas_release::ReleaseRef`]), unknown
//! fields are ignored by readers, so a newer partner does no harm. Every failed REST call answers
//! [`ErrorBody`]. With the feature `openapi` the REST types carry their schemas.
//!
//! ```
//! use pytheas_api::ddi::{Execution, Feedback, Finished};
//!
//! let report = Feedback::new(Execution::Closed, Finished::Success).detail("update installed");
//! assert_eq!(report.status.details, ["update installed"]);
//! assert!(report.is_closing());
//! ```

pub mod ddi;

mod artifact;
mod audit;
mod device;
mod enrolment;
mod error;
mod event;
mod fleet_config;
mod ids;
mod release;
mod rollout;
mod token;
mod traffic;

pub use artifact::{ArtifactFile, ArtifactModule};
pub use audit::AuditEntry;
pub use device::{
    ActionMessage, ActionStatus, ActionView, DeviceDetail, DeviceRequest, DeviceState, DeviceToken,
    DeviceView, UpdateState,
};
pub use enrolment::{
    EnrolmentAnswer, EnrolmentKey, EnrolmentKeyRequest, EnrolmentKeyView, EnrolmentRequest,
};
pub use error::{ErrorBody, ErrorDetail};
pub use event::{Event, EventKind};
pub use fleet_config::{
    BOARD_SETTINGS_MAX, BoardConfig, ConfigChange, ConfigLayer, ConfigLayerError, ConfigRevision,
    ConfigRollback, ConfigState, ConfigView, DeviceConfig, DeviceGroup, Group, GroupError,
    SETTINGS_DEPTH_MAX, Settings, merge_patch, within_depth,
};
pub use ids::{DeviceId, DeviceIdError};
pub use release::{BoardImageView, InUseView, ReleaseView};
pub use rollout::{
    GroupSize, GroupSizeError, GroupState, GroupView, RolloutDetail, RolloutDevice, RolloutRequest,
    RolloutState, RolloutView,
};
pub use token::{NewToken, Role, TokenRequest, TokenView};
pub use traffic::{DeviceTraffic, TrafficKind, TrafficReport, TrafficSums};

/// Where the hub listens when nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8470";

/// The one tenant there is; the hub takes it in any case and echoes the request's.
pub const DEFAULT_TENANT: &str = "default";

/// Header by which a device names itself on `/repo/` requests, beside its target token, so that
/// the hub counts the bytes it moves.
pub const DEVICE_HEADER: &str = "X-Pytheas-Device";

/// Every people's token begins so: `pyt_…`.
pub const TOKEN_PREFIX: &str = "pyt_";
