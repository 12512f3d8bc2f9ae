//! Renewing signatures before they expire: the hub's job, with the online keys only.

use std::num::NonZeroU64;

use bytes::Bytes;
use jiff::Timestamp;
use miette::Diagnostic;
use tough::schema::Role;

use crate::{
    base::{Base, next_free},
    keys::OnlineKeys,
    layout,
    repository::RepositoryError,
    sign::{self, Validity},
    store::{Store, StoreError},
};

/// What was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Version of the snapshot metadata, if it was signed again.
    pub snapshot: Option<u64>,
    /// Version of the timestamp metadata.
    pub timestamp: u64,
    /// When the timestamp metadata expires now.
    pub expires: Timestamp,
}

/// Signatures that were not renewed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RenewError {
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// The repository cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] RepositoryError),
    /// What only the developer can renew has expired.
    #[error("the {role} metadata of `{store}` expired at {expired} and it is {now}")]
    #[diagnostic(
        code(pytheas::renew::refused::offline),
        help(
            "the hub has no key for it: publish again (targets), or renew root with the root key"
        )
    )]
    Offline {
        /// The store.
        store: String,
        /// The role.
        role: String,
        /// When it expired.
        expired: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// The signature failed.
    #[error("cannot sign the {role} metadata")]
    #[diagnostic(
        code(pytheas::renew::sign),
        help("are these the online keys of this repository? `pytheas keys show` lists them")
    )]
    Sign {
        /// The role.
        role: &'static str,
        /// What `tough` says.
        source: Box<tough::error::Error>,
    },
}

/// Signs the timestamp metadata in `store` again, and the snapshot metadata when it has used up
/// half of its time. Releases stay as they are.
///
/// # Errors
/// [`StoreError::Locked`] or [`StoreError::Conflict`] while someone publishes: then they have
/// renewed it. [`RenewError::Offline`] when the root or targets metadata has expired.
pub async fn renew(
    store: &Store,
    keys: &OnlineKeys,
    validity: &Validity,
    now: Timestamp,
) -> Result<Renewed, RenewError> {
    let _lock = store.lock()?;
    let base = Base::load(store, &keys.root).await?;
    let Some(repository) = &base.repository else {
        return Err(RepositoryError::Empty {
            store: store.to_string(),
        }
        .into());
    };
    let root = repository.root();
    offline(store, root, now)?;
    offline(store, &repository.tuf().targets().signed, now)?;
    let [_, _, snapshot_now, timestamp_now] = repository.versions();

    let old = &repository.tuf().snapshot().signed;
    let half = validity.snapshot / 2;
    let mut renewed_snapshot = None;
    let meta = if old.expires.duration_since(now) > half {
        let Some(meta) = repository
            .tuf()
            .timestamp()
            .signed
            .meta
            .get("snapshot.json")
        else {
            return Err(RepositoryError::Empty {
                store: store.to_string(),
            }
            .into());
        };
        meta.clone()
    } else {
        let version = next_free(store, snapshot_now, layout::snapshot).await?;
        let mut role = old.clone();
        role.version = version;
        role.expires = sign::expiry(now, validity.snapshot);
        let signed = sign::sign(role, root, &keys.sources)
            .await
            .map_err(signing("snapshot"))?;
        let bytes = Bytes::from(signed.buffer().clone());
        store
            .create(&layout::snapshot(version.get()), bytes)
            .await?;
        renewed_snapshot = Some(version.get());
        sign::described(&signed)
    };
    let version = NonZeroU64::MIN.saturating_add(timestamp_now);
    let expires = sign::expiry(now, validity.timestamp);
    let signed = sign::timestamp(meta, version, now, expires, root, &keys.sources)
        .await
        .map_err(signing("timestamp"))?;
    let bytes = Bytes::from(signed.buffer().clone());
    store
        .replace(layout::TIMESTAMP, bytes, base.timestamp.as_ref())
        .await?;
    Ok(Renewed {
        snapshot: renewed_snapshot,
        timestamp: version.get(),
        expires,
    })
}

fn offline<T: Role>(store: &Store, role: &T, now: Timestamp) -> Result<(), RenewError> {
    let expired = role.expires();
    if expired > now {
        return Ok(());
    }
    let (store, role) = (store.to_string(), T::TYPE.to_string());
    Err(RenewError::Offline {
        store,
        role,
        expired,
        now,
    })
}

fn signing(role: &'static str) -> impl FnOnce(tough::error::Error) -> RenewError {
    move |source| RenewError::Sign {
        role,
        source: Box::new(source),
    }
}
