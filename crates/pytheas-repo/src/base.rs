//! What a change to a repository starts from, and finding out that someone else changed it.

use std::num::NonZeroU64;

use tough::schema::{Signed, Timestamp};

use crate::{
    keys::RootFile,
    layout,
    repository::{Repository, RepositoryError},
    store::{Seen, Store, StoreError},
};

/// Longest timestamp metadata, in bytes.
pub(crate) const TIMESTAMP_MAX: u64 = 1 << 20;
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
            let repository = match Repository::open_expired(store, &root.bytes).await {
                Ok(repository) => Some(repository),
                Err(RepositoryError::Empty { .. }) => None,
                Err(error) => return Err(error),
            };
            // Both must be of the same moment.
            let seen = timestamp
                .as_ref()
                .and_then(|seen| serde_json::from_slice::<Signed<Timestamp>>(&seen.bytes).ok());
            if seen.as_ref()
                == repository
                    .as_ref()
                    .map(|repository| repository.tuf().timestamp())
            {
                return Ok(Self {
                    store: store.clone(),
                    repository,
                    timestamp,
                });
            }
        }
        let (store, path) = (store.to_string(), layout::TIMESTAMP.to_owned());
        Err(StoreError::Conflict { store, path }.into())
    }
}

/// The first version above `now` that nobody, not even a publish that was cut off, has written.
pub(crate) async fn next_free(
    store: &Store,
    now: u64,
    path: fn(u64) -> String,
) -> Result<NonZeroU64, StoreError> {
    let mut version = NonZeroU64::MIN.saturating_add(now);
    while store.size_bytes(&path(version.get())).await?.is_some() {
        version = version.saturating_add(1);
    }
    Ok(version)
}
