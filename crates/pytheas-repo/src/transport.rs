//! Two adapters that let others read from a [`Store`]: `tough`'s loader, and the device client's
//! code, which the publisher uses to get old objects back, verified by the same lines.

use std::io::Cursor;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use crate::{
    fetch::{self, Body, Fetch, Request},
    store::Store,
};

/// Longest file `tough` is handed, in bytes; its own limits are lower.
const FILE_MAX: u64 = 64 << 20;

/// Base of the URLs that [`StoreTransport`] takes apart again.
pub(crate) const BASE: &str = "file:///";

/// Lets `tough` read a store.
#[derive(Debug, Clone)]
pub(crate) struct StoreTransport(pub(crate) Store);

#[async_trait]
impl Transport for StoreTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let path = as_specified(url.path().trim_start_matches('/'));
        let failed = |error| TransportError::new_with_cause(TransportErrorKind::Other, &url, error);
        match self.0.get(&path, FILE_MAX).await.map_err(failed)? {
            Some(bytes) => Ok(Box::pin(futures::stream::iter([Ok(bytes)]))),
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, &url)),
        }
    }
}

/// `tough` puts the hash of a consistent target before the whole name (`targets/HASH.a/b/c`); the
/// specification (§5.7.3: HASH.FILENAME) and python-tuf put it before the last part
/// (`targets/a/b/HASH.c`), and so do we.
fn as_specified(path: &str) -> String {
    let moved = path.strip_prefix("targets/").and_then(|rest| {
        let (hash, name) = rest.split_at_checked(64)?;
        let name = name.strip_prefix('.')?;
        let (folder, file) = name.rsplit_once('/')?;
        Some(format!("targets/{folder}/{hash}.{file}"))
    });
    moved.unwrap_or_else(|| path.to_owned())
}

/// Lets synchronous code, on a thread of its own, read a store.
pub(crate) struct BlockingFetch {
    pub(crate) store: Store,
    pub(crate) runtime: Handle,
}

impl Fetch for BlockingFetch {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, fetch::TransportError> {
        let start = request.range.as_ref().map_or(0, |range| range.start);
        let read = self
            .store
            .read(request.path, request.range.clone(), request.max_bytes);
        let seen = self.runtime.block_on(read)?;
        Ok(seen.map(|seen| Body {
            start,
            reader: Box::new(Cursor::new(seen.bytes)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lie_where_the_specification_says() {
        let hash = "a".repeat(64);
        assert_eq!(
            as_specified(&format!("targets/{hash}.greenhouse/1.0/linux/release.json")),
            format!("targets/greenhouse/1.0/linux/{hash}.release.json")
        );
        for same in [
            format!("targets/{hash}.one"),
            "metadata/timestamp.json".into(),
        ] {
            assert_eq!(as_specified(&same), same);
        }
    }
}
