//! Several publishers at once: one after the other in a folder, which has a lock; elsewhere whoever
//! comes second begins anew with what the first has published. Nobody's release is lost either way.

use std::time::{Duration, Instant};

use pytheas_durable::FileLock;

use super::PublishError;
use crate::{
    busy,
    repository::RepositoryError,
    store::{Store, StoreError},
};

/// How long a folder is waited for that somebody else publishes to: deltas may be made there.
const PATIENCE: Duration = Duration::from_secs(600);
/// Pause between two looks at its lock.
const LOOK: Duration = Duration::from_millis(50);
/// How often something is begun anew because others were faster.
const ATTEMPTS: u32 = 12;
/// The longest pause before that.
const LONGEST: Duration = Duration::from_secs(5);

/// What `work` gives, done while nobody else writes to `store`, or anew when somebody did.
pub(super) async fn in_turn<T>(
    store: &Store,
    work: impl AsyncFn() -> Result<T, PublishError>,
) -> Result<T, PublishError> {
    let _lock = lock(store, PATIENCE).await?;
    again(work, LOOK).await
}

/// What `work` gives once nobody else was faster; the `first` pause doubles.
async fn again<T>(
    work: impl AsyncFn() -> Result<T, PublishError>,
    first: Duration,
) -> Result<T, PublishError> {
    for attempt in 1..ATTEMPTS {
        match work().await {
            Err(error) if is_conflict(&error) => {
                tracing::warn!("{error}; going on from what that one published");
                let most = first.saturating_mul(1 << attempt).min(LONGEST);
                tokio::time::sleep(most.mul_f64(busy::random_fraction())).await;
            }
            other => return other,
        }
    }
    work().await
}

/// The lock of `store`, waited for up to `patience`; other stores than folders have none.
async fn lock(store: &Store, patience: Duration) -> Result<Option<FileLock>, StoreError> {
    let (begun, mut told) = (Instant::now(), false);
    loop {
        match store.lock() {
            Err(error @ StoreError::Locked { .. }) if begun.elapsed() < patience => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{error}; waiting for it");
                }
                tokio::time::sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

fn is_conflict(error: &PublishError) -> bool {
    matches!(
        error,
        PublishError::Store(StoreError::Conflict { .. })
            | PublishError::Repository(RepositoryError::Store(StoreError::Conflict { .. }))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_stays_locked_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::folder(dir.path()).unwrap();
        let held = store.lock().unwrap();
        let error = lock(&store, Duration::from_millis(120)).await.unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        drop(held);
        assert!(lock(&store, Duration::ZERO).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_always_comes_second_ends_with_that_error() {
        let tries = std::cell::Cell::new(0);
        let work = async || {
            tries.set(tries.get() + 1);
            let (store, path) = ("m".to_owned(), "timestamp.json".to_owned());
            Err::<(), _>(StoreError::Conflict { store, path }.into())
        };
        let error = again(work, Duration::ZERO).await.unwrap_err();
        assert!(is_conflict(&error), "{error}");
        assert_eq!(tries.get(), ATTEMPTS);
    }
}
