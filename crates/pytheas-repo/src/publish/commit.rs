//! The last step: metadata signed and written so that readers see all of it or none.

use std::{collections::HashMap, num::NonZeroU64};

use bytes::Bytes;
use pytheas_release::{Release, Sha256, TreeId};
use serde_json::json;
use tough::{
    TargetName,
    schema::{self, Hashes, Root, Targets},
};

use super::{Event, Events, Options, PublishError};
use crate::{
    base::{Base, next_free},
    client::ROOT_MAX,
    keys::{PublisherKeys, RootFile},
    layout,
    repository::{CUSTOM, Repository},
    sign,
    store::{Store, StoreError},
};

/// How often a commit is tried again when only the hub renewed its signatures meanwhile.
const ATTEMPTS: usize = 3;

/// What is to be published.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) document: Vec<u8>,
    pub(super) tree: TreeId,
}

impl Base {
    /// The release document that is the target `name`, if there is one.
    pub(super) async fn release(&self, name: &str) -> Result<Option<Release>, PublishError> {
        let Some(repository) = &self.repository else {
            return Ok(None);
        };
        if !repository
            .releases()
            .iter()
            .any(|release| release.target == name)
        {
            return Ok(None);
        }
        Ok(Some(repository.release(name).await?))
    }

    /// The root metadata to sign under: the newest there is.
    fn root<'a>(&'a self, keys: &'a RootFile) -> &'a Root {
        match &self.repository {
            Some(repository) if repository.root().version > keys.signed.version => {
                repository.root()
            }
            _ => &keys.signed,
        }
    }

    /// Whether the targets metadata has used up half of its time.
    pub(super) fn targets_grow_old(&self, options: &Options) -> bool {
        self.repository.as_ref().is_some_and(|repository| {
            let left = repository
                .tuf()
                .targets()
                .signed
                .expires
                .duration_since(options.now);
            left <= options.validity.targets / 2
        })
    }

    /// Publishes `target`. The bytes written.
    pub(super) async fn commit(
        mut self,
        keys: &PublisherKeys,
        target: Target,
        options: &Options,
        events: &Events,
    ) -> Result<u64, PublishError> {
        let mut written = 0;
        let root_path = layout::root(keys.root.signed.version.get());
        match self.store.get(&root_path, ROOT_MAX).await? {
            None => written += put(&self.store, &root_path, &keys.root.bytes, events).await?,
            Some(bytes) if bytes == keys.root.bytes => {}
            Some(_) => {
                return Err(PublishError::OtherRoot {
                    store: self.store.to_string(),
                    path: root_path,
                });
            }
        }
        let sha256 = Sha256::of(&target.document);
        let path = layout::target(&target.name, &sha256);
        written += put(&self.store, &path, &target.document, events).await?;
        for attempt in 1.. {
            match self.attempt(keys, &target, options, events).await {
                Ok(bytes) => return Ok(written + bytes),
                Err(PublishError::Store(StoreError::Conflict { .. })) if attempt < ATTEMPTS => {
                    // The hub renews timestamps; that is no reason to fail. Another publish is:
                    // packs and deltas were made without knowing of it.
                    let fresh = Self::load(&self.store, &keys.root).await?;
                    if fresh.targets_version() != self.targets_version() {
                        let (store, path) = (self.store.to_string(), layout::TIMESTAMP.to_owned());
                        return Err(StoreError::Conflict { store, path }.into());
                    }
                    self = fresh;
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn targets_version(&self) -> Option<u64> {
        self.repository
            .as_ref()
            .map(|repository| repository.versions()[1])
    }

    async fn attempt(
        &self,
        keys: &PublisherKeys,
        target: &Target,
        options: &Options,
        events: &Events,
    ) -> Result<u64, PublishError> {
        let (root, valid) = (self.root(&keys.root), &options.validity);
        let expires = |valid| sign::expiry(options.now, valid);
        let [_, targets_now, snapshot_now, timestamp_now] = self
            .repository
            .as_ref()
            .map_or([0; 4], Repository::versions);

        let version = next_free(&self.store, targets_now, layout::targets).await?;
        let mut targets = Targets::new(
            sign::SPEC_VERSION.to_owned(),
            version,
            expires(valid.targets),
        );
        targets.delegations = None;
        if let Some(repository) = &self.repository {
            let old = &repository.tuf().targets().signed;
            targets.targets.clone_from(&old.targets);
            targets._extra.clone_from(&old._extra);
            targets.delegations.clone_from(&old.delegations);
        }
        let name = TargetName::new(target.name.as_str()).map_err(signing("targets"))?;
        // Signed again, a release keeps the day it was published on.
        targets
            .targets
            .entry(name)
            .or_insert_with(|| described(target, options));
        let targets = sign::sign(targets, root, &keys.targets)
            .await
            .map_err(signing("targets"))?;

        let snapshot_version = next_free(&self.store, snapshot_now, layout::snapshot).await?;
        let online = &keys.online.sources;
        let snapshot = sign::snapshot(
            &targets,
            snapshot_version,
            expires(valid.snapshot),
            root,
            online,
        )
        .await
        .map_err(signing("snapshot"))?;

        let meta = sign::described(&snapshot);
        let timestamp_version = NonZeroU64::MIN.saturating_add(timestamp_now);
        let timestamp = sign::timestamp(
            meta,
            timestamp_version,
            options.now,
            expires(valid.timestamp),
            root,
            online,
        )
        .await
        .map_err(signing("timestamp"))?;

        let mut written = 0;
        for (path, bytes) in [
            (layout::targets(version.get()), targets.buffer()),
            (layout::snapshot(snapshot_version.get()), snapshot.buffer()),
        ] {
            self.store.create(&path, Bytes::from(bytes.clone())).await?;
            let size_bytes = bytes.len() as u64;
            events.tell(Event::Uploaded { path, size_bytes });
            written += size_bytes;
        }
        let bytes = Bytes::from(timestamp.buffer().clone());
        let size_bytes = bytes.len() as u64;
        self.store
            .replace(layout::TIMESTAMP, bytes, self.timestamp.as_ref())
            .await?;
        events.tell(Event::Uploaded {
            path: layout::TIMESTAMP.to_owned(),
            size_bytes,
        });
        events.tell(Event::Committed {
            targets_version: version.get(),
        });
        Ok(written + size_bytes)
    }
}

fn described(target: &Target, options: &Options) -> schema::Target {
    let published = sign::expiry(options.now, jiff::SignedDuration::ZERO).to_string();
    let custom = json!({ "tree": target.tree, "published": published });
    schema::Target {
        length: target.document.len() as u64,
        hashes: Hashes {
            sha256: Sha256::of(&target.document).as_bytes().to_vec().into(),
            _extra: HashMap::new(),
        },
        custom: HashMap::from([(CUSTOM.to_owned(), custom)]),
        _extra: HashMap::new(),
    }
}

async fn put(store: &Store, path: &str, bytes: &[u8], events: &Events) -> Result<u64, StoreError> {
    store.put(path, Bytes::copy_from_slice(bytes)).await?;
    let size_bytes = bytes.len() as u64;
    events.tell(Event::Uploaded {
        path: path.to_owned(),
        size_bytes,
    });
    Ok(size_bytes)
}

fn signing(role: &'static str) -> impl FnOnce(tough::error::Error) -> PublishError {
    move |source| PublishError::Sign {
        role,
        source: Box::new(source),
    }
}
