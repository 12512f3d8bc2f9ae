//! Metadata signed with `tough`: versions, expiries and the field that says when.

use std::{collections::HashMap, future::Future, num::NonZeroU64};

use aws_lc_rs::rand::SystemRandom;
use jiff::{SignedDuration, Timestamp as Time};
use tough::{
    editor::signed::SignedRole,
    key_source::KeySource,
    schema::{Hashes, KeyHolder, Metafile, Role, Root, Snapshot, Targets, Timestamp},
};

use crate::SIGNED_AT;

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

/// `now` and `valid`, in whole seconds as the specification asks (§4.2.1).
pub(crate) fn expiry(now: Time, valid: SignedDuration) -> Time {
    let expiry = now.checked_add(valid).unwrap_or(Time::MAX);
    Time::from_second(expiry.as_second()).unwrap_or(expiry)
}

/// `role`, signed with those of `keys` that `root` names for it.
pub(crate) async fn sign<T: Role>(
    role: T,
    root: &Root,
    keys: &[Box<dyn KeySource>],
) -> Result<SignedRole<T>, tough::error::Error> {
    SignedRole::new(
        role,
        &KeyHolder::Root(root.clone()),
        keys,
        &SystemRandom::new(),
    )
    .await
}

/// Signs the snapshot of `targets`.
pub(crate) async fn snapshot(
    targets: &SignedRole<Targets>,
    version: NonZeroU64,
    expires: Time,
    root: &Root,
    keys: &[Box<dyn KeySource>],
) -> Result<SignedRole<Snapshot>, tough::error::Error> {
    let mut role = Snapshot::new(SPEC_VERSION.to_owned(), version, expires);
    role.meta
        .insert("targets.json".to_owned(), described(targets));
    sign(role, root, keys).await
}

/// Signs the timestamp of a snapshot, which `meta` describes.
pub(crate) async fn timestamp(
    meta: Metafile,
    version: NonZeroU64,
    now: Time,
    expires: Time,
    root: &Root,
    keys: &[Box<dyn KeySource>],
) -> Result<SignedRole<Timestamp>, tough::error::Error> {
    let mut role = Timestamp::new(SPEC_VERSION.to_owned(), version, expires);
    role.meta.insert("snapshot.json".to_owned(), meta);
    let now = expiry(now, SignedDuration::ZERO).to_string();
    role._extra.insert(SIGNED_AT.to_owned(), now.into());
    sign(role, root, keys).await
}

/// What other metadata says about `role`: version, length, hash.
pub(crate) fn described<T: Role>(role: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*role.length()),
        hashes: Some(Hashes {
            sha256: role.sha256().to_vec().into(),
            _extra: HashMap::new(),
        }),
        version: role.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

/// Runs a future that waits for nothing: signing with keys in memory.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}
