//! Metadata signed: canonical JSON, as many signatures as the role demands, and the field that
//! says when.

use std::{collections::HashMap, num::NonZeroU64};

use jiff::{SignedDuration, Timestamp as Time};
use miette::Diagnostic;
use tough::schema::{
    Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Snapshot, Timestamp,
};

use crate::{
    SIGNED_AT,
    keys::{KeyId, SigningKey},
};

/// Version of the specification that metadata names; `tough` and python-tuf accept any 1.x.
pub(crate) const SPEC_VERSION: &str = "1.0.0";

/// How long signatures are good.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// The targets metadata, signed at each publish.
    pub targets: SignedDuration,
    /// The snapshot metadata, renewed by the hub.
    pub snapshot: SignedDuration,
    /// The timestamp metadata, renewed by the hub.
    pub timestamp: SignedDuration,
}

impl Default for Validity {
    /// 90, 30 and 7 days.
    fn default() -> Self {
        let days = |n: i64| SignedDuration::from_hours(24 * n);
        Self {
            targets: days(90),
            snapshot: days(30),
            timestamp: days(7),
        }
    }
}

/// Metadata that was not signed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SignError {
    /// Not enough keys.
    #[error("the role `{role}` needs {needed} signatures, there are keys for {have}")]
    #[diagnostic(
        code(pytheas::sign::too_few),
        help("`pytheas keys show` lists the keys of the role and which of them are here")
    )]
    TooFew {
        /// The role.
        role: String,
        /// Keys that are there.
        have: u64,
        /// Keys that are needed.
        needed: u64,
    },
    /// A key does not sign.
    #[error("the key `{key}` did not sign")]
    #[diagnostic(
        code(pytheas::sign::failed),
        help("a key that is a command: run the command of its file by hand to see what is wrong")
    )]
    Key {
        /// Its file.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It has no canonical form.
    #[error("the metadata cannot be written as canonical JSON")]
    #[diagnostic(code(pytheas::sign::encode))]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Signed metadata, and the bytes that are stored.
#[derive(Debug, Clone)]
pub(crate) struct SignedFile<T> {
    pub(crate) signed: Signed<T>,
    pub(crate) bytes: Vec<u8>,
}

impl<T: Role> SignedFile<T> {
    /// As it is stored: indented JSON and a line end. Names are sorted (`tough`'s maps are not), so
    /// that two people who put the same metadata in force have the same file.
    pub(crate) fn of(signed: Signed<T>) -> Result<Self, SignError> {
        let mut bytes = serde_json::to_value(&signed)
            .and_then(|value| serde_json::to_vec_pretty(&value))
            .map_err(|error| SignError::Encode(Box::new(error)))?;
        bytes.push(b'\n');
        Ok(Self { signed, bytes })
    }

    /// What other metadata says about it: version, length, hash.
    pub(crate) fn described(&self) -> Metafile {
        let sha256 = pytheas_release::Sha256::of(&self.bytes);
        Metafile {
            length: Some(self.bytes.len() as u64),
            hashes: Some(Hashes {
                sha256: sha256.as_bytes().to_vec().into(),
                _extra: HashMap::new(),
            }),
            version: self.signed.signed.version(),
            _extra: HashMap::new(),
        }
    }
}

/// `now` and `valid`, in whole seconds as the specification asks (§4.2.1).
pub(crate) fn expiry(now: Time, valid: SignedDuration) -> Time {
    let expiry = now.checked_add(valid).unwrap_or(Time::MAX);
    Time::from_second(expiry.as_second()).unwrap_or(expiry)
}

/// Adds to `signed` the signatures of those of `keys` whose ids are in `ids`, in place of theirs
/// that are there. How many were added.
pub(crate) fn add_signatures<T: Role>(
    signed: &mut Signed<T>,
    ids: &[KeyId],
    keys: &[SigningKey],
) -> Result<usize, SignError> {
    let message = signed
        .signed
        .canonical_form()
        .map_err(|error| SignError::Encode(Box::new(error)))?;
    let mut added = 0;
    for id in ids {
        let Some(key) = keys.iter().find(|key| key.id() == *id) else {
            continue;
        };
        let sig = key.sign(&message)?.into();
        signed.signatures.retain(|signature| signature.keyid != *id);
        let keyid = id.clone();
        signed.signatures.push(Signature { keyid, sig });
        added += 1;
    }
    Ok(added)
}

/// `role`, signed with as many of `keys` as `by` demands.
pub(crate) fn sign<T: Role>(
    role: T,
    name: &str,
    by: &RoleKeys,
    keys: &[SigningKey],
) -> Result<SignedFile<T>, SignError> {
    let mut signed = Signed {
        signed: role,
        signatures: Vec::new(),
    };
    let have = add_signatures(&mut signed, &by.keyids, keys)? as u64;
    let needed = by.threshold.get();
    if have < needed {
        let role = name.to_owned();
        return Err(SignError::TooFew { role, have, needed });
    }
    SignedFile::of(signed)
}

/// `role`, signed as `root` demands of its kind.
pub(crate) fn sign_top<T: Role>(
    role: T,
    root: &Root,
    keys: &[SigningKey],
) -> Result<SignedFile<T>, SignError> {
    sign(role, &T::TYPE.to_string(), &role_keys(root, T::TYPE), keys)
}

/// The keys of `role`; a root without the role asks for a signature by nobody.
pub(crate) fn role_keys(root: &Root, role: RoleType) -> RoleKeys {
    root.roles.get(&role).cloned().unwrap_or(RoleKeys {
        keyids: Vec::new(),
        threshold: NonZeroU64::MIN,
        _extra: HashMap::new(),
    })
}

/// Signs the snapshot that lists `meta`.
pub(crate) fn snapshot(
    meta: HashMap<String, Metafile>,
    version: NonZeroU64,
    expires: Time,
    root: &Root,
    keys: &[SigningKey],
) -> Result<SignedFile<Snapshot>, SignError> {
    let mut role = Snapshot::new(SPEC_VERSION.to_owned(), version, expires);
    role.meta = meta;
    sign_top(role, root, keys)
}

/// Signs the timestamp of a snapshot, which `meta` describes.
pub(crate) fn timestamp(
    meta: Metafile,
    version: NonZeroU64,
    now: Time,
    expires: Time,
    root: &Root,
    keys: &[SigningKey],
) -> Result<SignedFile<Timestamp>, SignError> {
    let mut role = Timestamp::new(SPEC_VERSION.to_owned(), version, expires);
    role.meta.insert("snapshot.json".to_owned(), meta);
    let now = expiry(now, SignedDuration::ZERO).to_string();
    role._extra.insert(SIGNED_AT.to_owned(), now.into());
    sign_top(role, root, keys)
}
