//! How a device becomes known: it asks with a secret of its own, a person (or an enrolment key)
//! accepts it, and it gets the token it polls with.
//!
//! ```text
//! POST /api/v1/enrolment  {"device_id": "gw-1", "platform": "linux-x86_64", "claim": "9f…"}
//!   202 {"state": "pending"}                                        ask again later (Retry-After)
//!   200 {"state": "accepted", "token": "…", "tenant": "default"}
//!   409 another claim was used for this id · 429 too many attempts
//! ```
//! The claim is 32 random bytes in hex, made and kept by the device: the hub stores its hash, so
//! only the device that asked first gets the token. Asking again while accepted gives a fresh
//! token; the old one stays valid until the new one is first used, so a lost answer does no harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// `POST /api/v1/enrolment`; needs no authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentRequest {
    /// Who asks.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device_id: DeviceId,
    /// A name for people; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The device's platform: `linux-x86_64`.
    pub platform: String,
    /// 32 random bytes in hex, made and kept by the device.
    pub claim: String,
    /// Accepts the device at once, when the hub knows the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment_key: Option<String>,
    /// First attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The answer to [`EnrolmentRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum EnrolmentAnswer {
    /// Somebody has to accept it first (202).
    Pending,
    /// It may poll (200).
    Accepted {
        /// For `Authorization: TargetToken …`.
        token: String,
        /// First part of its DDI address.
        tenant: String,
    },
}

/// `POST /api/v1/enrolment-keys`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentKeyRequest {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// How many devices it may accept; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// How long it is good for, in seconds; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u32>,
}

/// An enrolment key as the hub remembers it: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentKeyView {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// How many devices it may still accept; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// When it was made.
    pub created_ms: i64,
}

/// The answer to [`EnrolmentKeyRequest`]: the only time the secret is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentKey {
    /// The secret: `enr_…`.
    pub key: String,
    /// The rest.
    pub info: EnrolmentKeyView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_its_state() {
        let pending = serde_json::to_string(&EnrolmentAnswer::Pending).unwrap();
        assert_eq!(pending, r#"{"state":"pending"}"#);
        let accepted = r#"{"state":"accepted","token":"t","tenant":"default"}"#;
        assert_eq!(
            serde_json::from_str::<EnrolmentAnswer>(accepted).unwrap(),
            EnrolmentAnswer::Accepted {
                token: "t".into(),
                tenant: "default".into()
            }
        );
    }
}
