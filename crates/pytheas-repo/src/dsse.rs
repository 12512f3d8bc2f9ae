//! DSSE envelopes (secure-systems-lab/dsse v1.0): a statement signed so that it can be verified
//! without TUF, by whoever has the public key.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use tough::schema::{RoleKeys, RoleType, Root, key::Key};

use crate::{
    keys::{KeyId, PublisherKeys, public},
    sign::role_keys,
};

/// `payloadType` of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Bytes with what they are and who signed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The bytes, in base64.
    pub payload: String,
    /// What they are, e.g. [`IN_TOTO`].
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Who signed them.
    pub signatures: Vec<Signature>,
}

/// One signature of an [`Envelope`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The key's id, as TUF computes it. A hint: it is not signed.
    #[serde(default)]
    pub keyid: String,
    /// The signature over type and payload, in base64.
    pub sig: String,
}

/// An envelope that is not to be trusted.
#[derive(Debug, thiserror::Error, Diagnostic, PartialEq, Eq)]
pub enum EnvelopeError {
    /// It is no envelope.
    #[error("the statement is in no DSSE envelope: {0}")]
    #[diagnostic(
        code(pytheas::dsse::format),
        help("expected is JSON with `payload`, `payloadType` and `signatures`")
    )]
    Format(String),
    /// Too few of the keys that may sign did.
    #[error(
        "the statement's envelope has {signed} of the {threshold} good signatures that the root metadata demands"
    )]
    #[diagnostic(
        code(pytheas::dsse::refused::signature),
        help("it was changed after signing, or other keys signed it: do not trust it")
    )]
    Unsigned {
        /// Good signatures by different keys.
        signed: u64,
        /// What is demanded.
        threshold: u64,
    },
}

/// What is signed: DSSE's pre-authentication encoding.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// `payload`, signed with the targets key.
    ///
    /// # Errors
    /// What the key says.
    pub fn sign(
        keys: &PublisherKeys,
        payload_type: &str,
        payload: &[u8],
    ) -> Result<Self, crate::sign::SignError> {
        let message = encoding(payload_type, payload);
        let mut signatures = Vec::new();
        for key in &keys.signers {
            signatures.push(Signature {
                keyid: public::hex(&key.id()),
                sig: STANDARD.encode(key.sign(&message)?),
            });
        }
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures,
        })
    }

    /// The envelope in `bytes`.
    ///
    /// # Errors
    /// [`EnvelopeError::Format`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Format(error.to_string()))
    }

    /// The envelope as it is stored: one line of JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("keys are strings");
        bytes.push(b'\n');
        bytes
    }

    /// The payload, whoever signed it.
    ///
    /// # Errors
    /// [`EnvelopeError::Format`].
    pub fn payload(&self) -> Result<Vec<u8>, EnvelopeError> {
        STANDARD
            .decode(&self.payload)
            .map_err(|error| EnvelopeError::Format(format!("`payload`: {error}")))
    }

    /// The payload, if the keys that `root` names for targets signed it.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify(&self, root: &Root) -> Result<Vec<u8>, EnvelopeError> {
        self.verify_by(&Signers {
            keys: root.keys.clone(),
            by: role_keys(root, RoleType::Targets),
        })
    }

    /// The payload, if enough of the `signers` signed it.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify_by(&self, signers: &Signers) -> Result<Vec<u8>, EnvelopeError> {
        let payload = self.payload()?;
        let message = encoding(&self.payload_type, &payload);
        let threshold = signers.by.threshold.get();
        let is_good = |id: &&KeyId| {
            let Some(key) = signers.keys.get(*id) else {
                return false;
            };
            self.signatures.iter().any(|signature| {
                let bytes = STANDARD.decode(&signature.sig);
                bytes.is_ok_and(|bytes| public::verify(key, &message, &bytes))
            })
        };
        let signed = signers.by.keyids.iter().filter(is_good).count() as u64;
        if signed < threshold {
            return Err(EnvelopeError::Unsigned { signed, threshold });
        }
        Ok(payload)
    }
}

/// Who may sign, and how many of them must.
#[derive(Debug, Clone)]
pub struct Signers {
    pub(crate) keys: HashMap<KeyId, Key>,
    pub(crate) by: RoleKeys,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_payload_are_encoded_as_the_specification_shows() {
        let bytes = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
