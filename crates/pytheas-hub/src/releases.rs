//! The repository as the hub sees it: releases read through TUF (`pytheas-repo` verifies), files
//! served as they are.
//!
//! The verified repository is kept until its timestamp metadata changes, and looked at again every
//! minute, since what it lists expires.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use miette::Diagnostic;
use object_store::{ObjectStore, local::LocalFileSystem, prefix::PrefixStore};
use pytheas_api::{BoardImageView, ReleaseView};
use pytheas_release::{Name, Platform, Release, Sha256, TreeId, Version};
use pytheas_repo::{
    layout,
    repository::{Listed, Repository, RepositoryError},
    store::{Store, StoreError},
};
use tokio::sync::Mutex;

use crate::{Clock, Config};

/// How long a verified repository is believed without looking at expiries again.
const BELIEVED_MS: i64 = 60_000;
/// Longest metadata file, in bytes.
const METADATA_MAX: u64 = 16 << 20;

/// A repository that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum ReleasesError {
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// It does not verify, or has expired.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] RepositoryError),
}

struct Verified {
    timestamp: Bytes,
    at_ms: i64,
    repository: Arc<Repository>,
    documents: HashMap<String, Arc<(Release, Vec<u8>)>>,
}

/// See the module.
pub(crate) struct Releases {
    /// For reading through TUF.
    pub(crate) store: Store,
    /// For serving and taking plain files.
    pub(crate) objects: Arc<dyn ObjectStore>,
    root: Option<Vec<u8>>,
    clock: Clock,
    verified: Mutex<Option<Verified>>,
}

impl Releases {
    /// The repository of this configuration; nothing is read yet.
    pub(crate) fn open(config: &Config, root: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let (store, objects): (Store, Arc<dyn ObjectStore>) = match config.repo_folder() {
            Some(folder) => {
                let store = Store::folder(&folder)?;
                let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|error| {
                    StoreError::Location {
                        location: folder.display().to_string(),
                        why: error.to_string(),
                    }
                })?;
                (store, Arc::new(objects))
            }
            None => {
                let location = config.repo.clone().unwrap_or_default();
                let wrong = |why: String| StoreError::Location {
                    location: location.clone(),
                    why,
                };
                let url = url::Url::parse(&location).map_err(|error| wrong(error.to_string()))?;
                let (objects, prefix) = object_store::parse_url_opts(&url, std::env::vars())
                    .map_err(|error| wrong(error.to_string()))?;
                let objects = PrefixStore::new(Arc::<dyn ObjectStore>::from(objects), prefix);
                (Store::open(&location, None)?, Arc::new(objects))
            }
        };
        Ok(Self {
            store,
            objects,
            root,
            clock: config.clock.clone(),
            verified: Mutex::new(None),
        })
    }

    /// Every release there is; none while nothing was published.
    pub(crate) async fn list(&self) -> Result<Vec<ReleaseView>, ReleasesError> {
        let mut views = Vec::new();
        for (listed, document) in self.documents(|_, _| true).await? {
            let release = &document.0;
            views.push(ReleaseView {
                name: release.name.to_string(),
                version: release.version.to_string(),
                platform: release.platform.to_string(),
                form: release.form.clone(),
                tree: release.tree.id.to_string(),
                size_bytes: release.tree.size_bytes,
                files: release.tree.files,
                target: listed.target,
                deltas: release.deltas.len() as u64,
                board: release.board.map(|board| BoardImageView {
                    sha256: board.image.sha256.to_string(),
                    size_bytes: board.image.size_bytes,
                    counter: board.counter,
                }),
                published_ms: listed.published.map(|time| time.as_millisecond()),
            });
        }
        Ok(views)
    }

    /// The versions of an app, for messages.
    pub(crate) async fn versions(&self, name: &Name) -> Result<Vec<String>, ReleasesError> {
        let Some(repository) = self.repository().await? else {
            return Ok(Vec::new());
        };
        let mut versions: Vec<String> = repository
            .releases()
            .into_iter()
            .filter(|listed| listed.reference.name == *name)
            .map(|listed| listed.reference.version.to_string())
            .collect();
        versions.dedup();
        Ok(versions)
    }

    /// The release documents of one version, by platform, with the bytes that are signed.
    pub(crate) async fn of(
        &self,
        name: &Name,
        version: &Version,
    ) -> Result<Vec<Arc<(Release, Vec<u8>)>>, ReleasesError> {
        let found = self.documents(|n, v| n == name && v == version).await?;
        Ok(found.into_iter().map(|(_, document)| document).collect())
    }

    /// The releases with the trees `from` and `to`, if both are of one app and platform.
    pub(crate) async fn pair(
        &self,
        from: TreeId,
        to: TreeId,
    ) -> Result<Option<(Release, Release)>, ReleasesError> {
        let Some(repository) = self.repository().await? else {
            return Ok(None);
        };
        let listed = repository.releases();
        let with = |tree| listed.iter().filter(move |one| one.tree == Some(tree));
        let pair = with(to).find_map(|to| {
            let is_same = |from: &&Listed| {
                from.reference.name == to.reference.name && from.platform == to.platform
            };
            Some((with(from).find(is_same)?, to))
        });
        let Some((old, new)) = pair.filter(|_| from != to) else {
            return Ok(None);
        };
        let (old, new) = (
            repository.release(&old.target).await?,
            repository.release(&new.target).await?,
        );
        // What targets metadata says of a release beside its document is only a hint.
        Ok((old.tree.id == from && new.tree.id == to).then_some((old, new)))
    }

    /// The trees of all releases with app and platform, and the blobs of all deltas that are
    /// signed for.
    pub(crate) async fn trees_and_deltas(
        &self,
    ) -> Result<(BTreeSet<(Name, Platform, TreeId)>, BTreeSet<Sha256>), ReleasesError> {
        let (mut trees, mut deltas) = (BTreeSet::new(), BTreeSet::new());
        for (_, document) in self.documents(|_, _| true).await? {
            let release = &document.0;
            deltas.extend(release.deltas.values().map(|blob| blob.sha256));
            trees.insert((
                release.name.clone(),
                release.platform.clone(),
                release.tree.id,
            ));
        }
        Ok((trees, deltas))
    }

    async fn documents(
        &self,
        wanted: impl Fn(&Name, &Version) -> bool,
    ) -> Result<Vec<(pytheas_repo::repository::Listed, Arc<(Release, Vec<u8>)>)>, ReleasesError>
    {
        let Some(repository) = self.repository().await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for listed in repository.releases() {
            if !wanted(&listed.reference.name, &listed.reference.version) {
                continue;
            }
            let known = {
                let verified = self.verified.lock().await;
                verified
                    .as_ref()
                    .and_then(|v| v.documents.get(&listed.target).cloned())
            };
            let document = match known {
                Some(document) if document.1.len() as u64 == listed.document.size_bytes => document,
                _ => {
                    let bytes = repository.document(&listed.target).await?;
                    let release = Release::parse(&listed.target, &bytes).map_err(|source| {
                        RepositoryError::Document {
                            store: self.store.to_string(),
                            source,
                        }
                    })?;
                    let document = Arc::new((release, bytes));
                    if let Some(verified) = self.verified.lock().await.as_mut() {
                        verified
                            .documents
                            .insert(listed.target.clone(), document.clone());
                    }
                    document
                }
            };
            found.push((listed, document));
        }
        Ok(found)
    }

    /// The verified repository; none while nothing was published.
    async fn repository(&self) -> Result<Option<Arc<Repository>>, ReleasesError> {
        let Some(timestamp) = self.store.get(layout::TIMESTAMP, METADATA_MAX).await? else {
            return Ok(None);
        };
        let now_ms = self.clock.now_ms();
        let mut verified = self.verified.lock().await;
        if let Some(known) = &*verified
            && known.timestamp == timestamp
            && (0..BELIEVED_MS).contains(&(now_ms - known.at_ms))
        {
            return Ok(Some(known.repository.clone()));
        }
        let root = match &self.root {
            Some(root) => root.clone(),
            None => match self.store.get(&layout::root(1), METADATA_MAX).await? {
                Some(root) => root.to_vec(),
                None => return Ok(None),
            },
        };
        let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let repository = Arc::new(Repository::open(&self.store, &root, now).await?);
        // Targets never change their content under one name, so documents are kept while the
        // timestamp is the same.
        let documents = match verified.take() {
            Some(known) if known.timestamp == timestamp => known.documents,
            _ => HashMap::new(),
        };
        *verified = Some(Verified {
            timestamp,
            at_ms: now_ms,
            repository: repository.clone(),
            documents,
        });
        Ok(Some(repository))
    }
}

impl std::fmt::Debug for Releases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Releases({})", self.store)
    }
}
