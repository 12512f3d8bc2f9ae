//! Listing and removing what lies in a store.

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use object_store::{ObjectStoreExt as _, path::Path};

use super::{Kind, Store, StoreError};

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lying {
    /// Its path.
    pub(crate) path: String,
    /// Its length.
    pub(crate) size_bytes: u64,
    /// When it was written last, by the store's clock.
    pub(crate) written: Timestamp,
}

impl Store {
    /// Whether what lies there can be listed and removed: not over plain HTTP.
    pub fn can_be_swept(&self) -> bool {
        self.kind != Kind::Http
    }

    /// The files below the folder `folder`, in no order.
    pub(crate) fn below(&self, folder: &str) -> BoxStream<'static, Result<Lying, StoreError>> {
        let (store, folder) = (self.clone(), folder.to_owned());
        let listed = self.objects.list(Some(&Path::from(folder.as_str())));
        listed
            .map_err(move |source| store.failed("list", &folder, source))
            .map_ok(|meta| Lying {
                path: meta.location.to_string(),
                size_bytes: meta.size,
                written: Timestamp::from_millisecond(meta.last_modified.timestamp_millis())
                    .unwrap_or(Timestamp::MAX),
            })
            .boxed()
    }

    /// What there is to say about the file `path`, if it is there.
    pub(crate) async fn lying(&self, path: &str) -> Result<Option<Lying>, StoreError> {
        let meta = match self.objects.head(&Path::from(path)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|source| self.failed("read", path, source))?,
        };
        Ok(Some(Lying {
            path: path.to_owned(),
            size_bytes: meta.size,
            written: Timestamp::from_millisecond(meta.last_modified.timestamp_millis())
                .unwrap_or(Timestamp::MAX),
        }))
    }

    /// Removes the file `path`; one that is not there is fine.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("remove", path, source)),
        }
    }
}
