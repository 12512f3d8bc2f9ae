//! What a change to a repository starts from, and finding out that someone else changed it.

use std::num::NonZeroU64;

use jiff::{SignedDuration, Timestamp};

use crate::{
    keys::RootFile,
    layout,
    repository::{Repository, RepositoryError},
    store::{Seen, Store, StoreError},
};

/// Longest timestamp metadata, in bytes.
pub(crate) const TIMESTAMP_MAX: u64 = 1 << 20;
/// No two clocks that are set differ more.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(24);
/// How often reading is tried again when the repository changes meanwhile.
const ATTEMPTS: usize = 3;

/// What a publish starts from: the repository as it is, and the timestamp that made it so.
pub(crate) struct Base {
    pub(crate) store: Store,
    pub(crate) repository: Option<Repository>,
    pub(crate) timestamp: Option<Seen>,
}

impl Base {
    /// The repository in `store` as it is now.
    pub(crate) async fn load(store: &Store, root: &RootFile) -> Result<Self, RepositoryError> {
        for _ in 0..ATTEMPTS {
            let timestamp = store.look(layout::TIMESTAMP, TIMESTAMP_MAX).await?;
            match Repository::open_expired(store, &root.bytes, timestamp.as_ref()).await {
                Ok(repository) => {
                    return Ok(Self {
                        store: store.clone(),
                        repository: Some(repository),
                        timestamp,
                    });
                }
                Err(RepositoryError::Empty { .. }) => {
                    return Ok(Self {
                        store: store.clone(),
                        repository: None,
                        timestamp,
                    });
                }
                // Did somebody publish between the reads? What is wrong for good stays so.
                Err(error) => {
                    let now = store.look(layout::TIMESTAMP, TIMESTAMP_MAX).await?;
                    let bytes = |seen: &Option<Seen>| seen.as_ref().map(|s| s.bytes.clone());
                    if bytes(&now) == bytes(&timestamp) {
                        return Err(error);
                    }
                }
            }
        }
        let (store, path) = (store.to_string(), layout::TIMESTAMP.to_owned());
        Err(StoreError::Conflict { store, path }.into())
    }
}

impl Base {
    /// Whoever is to sign at `now` has a clock: it is not far behind that of who signed last.
    pub(crate) fn require_clock(&self, now: Timestamp) -> Result<(), RepositoryError> {
        let Some((_, timestamp)) = self
            .repository
            .as_ref()
            .and_then(|repository| repository.metadata().online.as_ref())
        else {
            return Ok(());
        };
        let signed = timestamp.signed._extra.get(crate::SIGNED_AT);
        let signed: Option<Timestamp> = signed.and_then(|at| at.as_str()?.parse().ok());
        match signed {
            Some(signed) if signed.duration_since(now) > CLOCKS_DIFFER => {
                let store = self.store.to_string();
                Err(RepositoryError::ClockBehind { store, signed, now })
            }
            _ => Ok(()),
        }
    }
}

/// The first version above `now` that nobody, not even a publish that was cut off, has written.
pub(crate) async fn next_free(
    store: &Store,
    now: u64,
    role: &str,
) -> Result<NonZeroU64, StoreError> {
    let mut version = NonZeroU64::MIN.saturating_add(now);
    while store
        .size_bytes(&layout::role(role, Some(version.get())))
        .await?
        .is_some()
    {
        version = version.saturating_add(1);
    }
    Ok(version)
}
