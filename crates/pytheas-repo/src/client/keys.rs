//! Public keys of a repository, and whether enough of them have signed something.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;

/// A public key (TUF §4.2). One of a kind we do not know is no error: it signs nothing.
///
/// Off-spec (as TAP 12 has it): that a key's id is the hash of the key is not checked. Nothing
/// rests on it here, because the keys are counted and not their ids.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    keytype: String,
    scheme: String,
    #[serde(default)]
    keyval: KeyVal,
}

#[derive(Debug, Default, Deserialize)]
struct KeyVal {
    #[serde(default)]
    public: String,
}

impl Key {
    fn algorithm(&self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => &ED25519,
            // The key types with a curve in their names are those of before 1.0.20.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => &ECDSA_P256_SHA256_ASN1,
            ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => &ECDSA_P384_SHA384_ASN1,
            ("ecdsa" | "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521") => &ECDSA_P521_SHA512_ASN1,
            ("rsa", "rsassa-pss-sha256") => &RSA_PSS_2048_8192_SHA256,
            ("rsa", "rsassa-pss-sha384") => &RSA_PSS_2048_8192_SHA384,
            ("rsa", "rsassa-pss-sha512") => &RSA_PSS_2048_8192_SHA512,
            ("rsa", "rsa-pkcs1v15-sha256") => &RSA_PKCS1_2048_8192_SHA256,
            ("rsa", "rsa-pkcs1v15-sha384") => &RSA_PKCS1_2048_8192_SHA384,
            ("rsa", "rsa-pkcs1v15-sha512") => &RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// The key itself: 32 bytes of Ed25519, or a `SubjectPublicKeyInfo` (RFC 5280) in DER.
    fn material(&self) -> Option<Vec<u8>> {
        if self.keytype == "ed25519" {
            return hex::decode(&self.keyval.public).ok();
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(self.keyval.public.as_bytes()).ok()?;
        Some(der.as_ref().to_vec())
    }
}

/// A signature (§4.2).
#[derive(Debug, Deserialize)]
pub(super) struct Signature {
    pub(super) keyid: String,
    /// Hexadecimal; some repositories leave it empty for who has not signed yet.
    sig: String,
}

/// Who signs a role, and how many of them must.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'r> {
    pub(super) keys: &'r HashMap<String, Key>,
    pub(super) keyids: &'r [String],
    pub(super) threshold: u64,
}

impl Keys<'_> {
    /// How many different keys of the role have signed `message`: keys, not ids of keys, so that
    /// one key under two names counts once.
    pub(super) fn count(&self, message: &[u8], signatures: &[Signature]) -> u64 {
        let mut good = HashSet::new();
        for signature in signatures {
            let key = self
                .keyids
                .contains(&signature.keyid)
                .then(|| self.keys.get(&signature.keyid));
            let Some(key) = key.flatten() else { continue };
            let (Some(algorithm), Some(material), Ok(bytes)) =
                (key.algorithm(), key.material(), hex::decode(&signature.sig))
            else {
                continue;
            };
            if !good.contains(&material) && verifies(algorithm, &material, message, &bytes) {
                good.insert(material);
            }
        }
        good.len() as u64
    }

    /// The threshold and the keys themselves, to compare two versions of a role.
    fn authority(&self) -> (u64, HashSet<Option<Vec<u8>>>) {
        let keys = self.keyids.iter();
        let materials = keys.map(|id| self.keys.get(id).and_then(Key::material));
        (self.threshold, materials.collect())
    }

    /// Whether both are the same keys and the same threshold.
    pub(super) fn same_as(&self, other: &Keys<'_>) -> bool {
        self.authority() == other.authority()
    }
}

fn verifies(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key: UnparsedPublicKey<&[u8]> = signature::UnparsedPublicKey::new(algorithm, key);
    key.verify(message, signature).is_ok()
}
