//! Lets the device client's code, which the publisher uses to get old objects back, read from a
//! [`Store`], verified by the same lines.

use std::io::Cursor;

use tokio::runtime::Handle;

use crate::{
    fetch::{self, Body, Fetch, Request},
    store::Store,
};

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
