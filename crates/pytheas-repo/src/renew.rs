//! Renewing signatures before they expire, and taking up what teams have signed: the hub's job,
//! with the online keys only.

use std::num::NonZeroU64;

use bytes::Bytes;
use jiff::Timestamp;
use miette::Diagnostic;
use tough::schema::{Role, RoleType};

use crate::{
    base::Base,
    keys::OnlineKeys,
    layout,
    publish::{Batch, CommitError, Events},
    repository::RepositoryError,
    sign::{self, SignError, Validity},
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
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sign(#[from] SignError),
    /// The keys were replaced.
    #[error("the online keys in use are not those of root version {root}")]
    #[diagnostic(
        code(pytheas::renew::refused::replaced),
        help(
            "they were replaced: copy the folder `online` of the developer's keys to the hub, in place of the one it has"
        )
    )]
    Replaced {
        /// The version of the root in force.
        root: u64,
    },
}

/// Signs the timestamp metadata in `store` again, and the snapshot metadata when it has used up
/// half of its time or when a team has uploaded metadata that it does not list. What others signed
/// stays as it is.
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
    base.require_clock(now)?;
    let Some(repository) = &base.repository else {
        return Err(RepositoryError::Empty {
            store: store.to_string(),
        }
        .into());
    };
    let root = repository.root();
    offline(store, root, now)?;
    offline(store, &repository.metadata().targets.signed, now)?;
    let metadata = repository.metadata();
    let Some((snapshot, timestamp)) = &metadata.online else {
        return Err(RepositoryError::Empty {
            store: store.to_string(),
        }
        .into());
    };
    for role in [RoleType::Snapshot, RoleType::Timestamp] {
        let by = sign::role_keys(root, role);
        let have = by
            .keyids
            .iter()
            .filter(|id| keys.keys.iter().any(|key| key.id() == **id));
        if (have.count() as u64) < by.threshold.get() {
            let root = root.version.get();
            return Err(RenewError::Replaced { root });
        }
    }
    let half = validity.snapshot / 2;
    let old = snapshot.signed.expires.duration_since(now) <= half;
    if old || !base.uploaded(now).await?.is_empty() {
        let batch = Batch {
            root,
            roles: Vec::new(),
            validity,
            now,
        };
        let written = base.write(keys, batch, &Events::none()).await;
        let written = written.map_err(|error| match error {
            CommitError::Store(error) => RenewError::from(error),
            CommitError::Sign(error) => error.into(),
        })?;
        return Ok(Renewed {
            snapshot: Some(written.snapshot),
            timestamp: written.timestamp,
            expires: written.expires,
        });
    }
    let Some(meta) = timestamp.signed.meta.get("snapshot.json") else {
        return Err(RepositoryError::Empty {
            store: store.to_string(),
        }
        .into());
    };
    let version = NonZeroU64::MIN.saturating_add(timestamp.signed.version.get());
    let expires = sign::expiry(now, validity.timestamp);
    let signed = sign::timestamp(meta.clone(), version, now, expires, root, &keys.keys)?;
    store
        .replace(
            layout::TIMESTAMP,
            Bytes::from(signed.bytes),
            base.timestamp.as_ref(),
        )
        .await?;
    Ok(Renewed {
        snapshot: None,
        timestamp: version.get(),
        expires,
    })
}

/// Whether teams have uploaded metadata that is in no snapshot yet.
///
/// # Errors
/// [`RepositoryError`].
pub async fn has_uploads(
    store: &Store,
    keys: &OnlineKeys,
    now: Timestamp,
) -> Result<bool, RepositoryError> {
    let base = Base::load(store, &keys.root).await?;
    Ok(!base.uploaded(now).await?.is_empty())
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
