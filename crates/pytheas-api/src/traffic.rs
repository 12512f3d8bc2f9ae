//! Bytes moved, per device and kind (`GET /api/v1/traffic`). The counters only grow; to measure
//! one update, read before and after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TrafficKind {
    /// The device API, artifact downloads included.
    Ddi,
    /// `/repo/`: metadata, packs, deltas.
    Repo,
    /// `/api/`.
    Api,
    /// Pages for people.
    Page,
}

impl TrafficKind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Ddi, Self::Repo, Self::Api, Self::Page];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddi => "ddi",
            Self::Repo => "repo",
            Self::Api => "api",
            Self::Page => "page",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Sums of one kind: request line, headers and bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrafficSums {
    /// Number of requests.
    pub requests: u64,
    /// Bytes the hub received.
    pub received_bytes: u64,
    /// Bytes the hub sent.
    pub sent_bytes: u64,
}

impl TrafficSums {
    /// Both directions.
    pub fn total_bytes(&self) -> u64 {
        self.received_bytes + self.sent_bytes
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
        }
    }
}

/// One device's sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceTraffic {
    /// The device.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device: DeviceId,
    /// Its sums by kind.
    pub kinds: BTreeMap<TrafficKind, TrafficSums>,
}

impl DeviceTraffic {
    /// All kinds together.
    pub fn total(&self) -> TrafficSums {
        self.kinds
            .values()
            .fold(TrafficSums::default(), |sum, kind| TrafficSums {
                requests: sum.requests + kind.requests,
                received_bytes: sum.received_bytes + kind.received_bytes,
                sent_bytes: sum.sent_bytes + kind.sent_bytes,
            })
    }
}

/// `GET /api/v1/traffic[?device=ID]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrafficReport {
    /// Until when it was counted.
    pub at_ms: i64,
    /// Everything by kind, devices and people; empty when one device was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub total: BTreeMap<TrafficKind, TrafficSums>,
    /// By device.
    pub devices: Vec<DeviceTraffic>,
}
