//! Secrets: made from 32 random bytes, stored as their SHA-256, compared by it.
//!
//! Comparing (or looking up) hashes of 256-bit secrets tells an attacker who times it nothing
//! about the secret itself.

use sha2::{Digest, Sha256};

/// What is stored instead of a secret.
pub(crate) type Hash = [u8; 32];

/// A new secret: `prefix` and 64 hex digits.
pub(crate) fn new(prefix: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

/// What is stored instead of `secret`.
pub(crate) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// A word bound to a session, which a page's forms carry and another site cannot know.
pub(crate) fn form_word(session: &str) -> String {
    hex::encode(&hash(&format!("form:{session}"))[..16])
}
