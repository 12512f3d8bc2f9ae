//! What this client reads of the four roles (TUF 1.0.33, §4). Fields that are not here are
//! signed all the same ([`super::canonical`]).

use std::{collections::HashMap, num::NonZeroU64};

use jiff::Timestamp as Time;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    delegations::Delegations,
    keys::{Key, Keys},
};

/// One of the roles.
pub(super) trait Role: DeserializeOwned {
    /// The value of `_type`, and the name of the role that root metadata gives keys to.
    const NAME: &'static str;
    fn kind(&self) -> &str;
    fn spec_version(&self) -> &str;
    fn version(&self) -> u64;
    fn expires(&self) -> Time;
}

macro_rules! role {
    ($type:ident, $name:literal) => {
        impl Role for $type {
            const NAME: &'static str = $name;
            fn kind(&self) -> &str {
                &self.kind
            }
            fn spec_version(&self) -> &str {
                &self.spec_version
            }
            fn version(&self) -> u64 {
                self.version.get()
            }
            fn expires(&self) -> Time {
                self.expires
            }
        }
    };
}

role!(Root, "root");
role!(Timestamp, "timestamp");
role!(Snapshot, "snapshot");
role!(Targets, "targets");

/// Root metadata (§4.3).
#[derive(Debug, Deserialize)]
pub(super) struct Root {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: NonZeroU64,
    expires: Time,
    consistent_snapshot: Option<bool>,
    keys: HashMap<String, Key>,
    roles: HashMap<String, RoleKeys>,
}

/// Keys of one role.
#[derive(Debug, Deserialize)]
struct RoleKeys {
    keyids: Vec<String>,
    threshold: NonZeroU64,
}

impl Root {
    /// Whether metadata has its version, and a target its hash, in the file's name (§6.2).
    pub(super) fn consistent_snapshot(&self) -> bool {
        self.consistent_snapshot.unwrap_or(false)
    }

    /// Who signs the top-level role `role`; nobody when root does not say.
    pub(super) fn keys(&self, role: &str) -> Keys<'_> {
        match self.roles.get(role) {
            Some(named) => Keys {
                keys: &self.keys,
                keyids: &named.keyids,
                threshold: named.threshold.get(),
            },
            None => Keys {
                keys: &self.keys,
                keyids: &[],
                threshold: 1,
            },
        }
    }
}

/// Timestamp metadata (§4.6).
#[derive(Debug, Deserialize)]
pub(super) struct Timestamp {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: NonZeroU64,
    expires: Time,
    pub(super) meta: HashMap<String, Metafile>,
    /// [`crate::SIGNED_AT`]
    #[serde(rename = "x-pytheas-signed")]
    signed_at: Option<serde_json::Value>,
}

impl Timestamp {
    /// When it was signed, if its publisher said so.
    pub(super) fn signed_at(&self) -> Option<Time> {
        self.signed_at.as_ref()?.as_str()?.parse().ok()
    }
}

/// Snapshot metadata (§4.4).
#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: NonZeroU64,
    expires: Time,
    pub(super) meta: HashMap<String, Metafile>,
}

/// What one metadata file says about another.
#[derive(Debug, Deserialize)]
pub(super) struct Metafile {
    pub(super) version: NonZeroU64,
    pub(super) length: Option<u64>,
    pub(super) hashes: Option<HashMap<String, String>>,
}

/// Targets metadata, the top-level one and those of delegated roles (§4.5).
#[derive(Debug, Deserialize)]
pub(super) struct Targets {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: NonZeroU64,
    expires: Time,
    pub(super) targets: HashMap<String, Target>,
    pub(super) delegations: Option<Delegations>,
}

/// What targets metadata says about a file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Target {
    pub(super) length: u64,
    pub(super) hashes: HashMap<String, String>,
}
