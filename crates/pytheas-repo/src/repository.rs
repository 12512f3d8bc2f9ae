//! A repository as the hub and the publisher read it: verified by `tough`, listed, never trusted
//! further than its signatures reach.

use std::str::FromStr;

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_release::{
    BlobRef, DocumentError, Name, Platform, Release, ReleaseRef, Sha256, TreeId, Version,
};
use serde_json::Value;
use tough::{
    ExpirationEnforcement, IntoVec, RepositoryLoader, TargetName,
    schema::{Role, Root, Target},
};
use url::Url;

use crate::{
    layout,
    store::{Store, StoreError},
    transport::{BASE, StoreTransport},
};

/// Key of what we say about a target in its `custom` field (TUF §4.5).
pub(crate) const CUSTOM: &str = "pytheas";

/// A repository that cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RepositoryError {
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// Nothing was ever published there.
    #[error("there is no repository in `{store}`")]
    #[diagnostic(
        code(pytheas::repository::empty),
        help("`pytheas publish` makes one; is the address right?")
    )]
    Empty {
        /// The store.
        store: String,
    },
    /// It does not verify.
    #[error("the repository in `{store}` does not verify")]
    #[diagnostic(
        code(pytheas::repository::refused::unverified),
        help(
            "is `root.json` the one of this repository? If so, someone or something changed the repository: restore it"
        )
    )]
    Unverified {
        /// The store.
        store: String,
        /// What `tough` says.
        source: Box<tough::error::Error>,
    },
    /// Too old.
    #[error("the {role} metadata of `{store}` expired at {expired} and it is {now}")]
    #[diagnostic(
        code(pytheas::repository::refused::expired),
        help(
            "the hub renews timestamp and snapshot, `pytheas publish` all but root, `pytheas keys` root"
        )
    )]
    Expired {
        /// The store.
        store: String,
        /// The role.
        role: String,
        /// When it expired.
        expired: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// No such release.
    #[error("there is no release `{target}` in `{store}`")]
    #[diagnostic(code(pytheas::repository::no_release), help("{have}"))]
    NoRelease {
        /// The store.
        store: String,
        /// The target.
        target: String,
        /// What there is.
        have: String,
    },
    /// A release document that cannot be used.
    #[error("a release in `{store}` cannot be used")]
    #[diagnostic(
        code(pytheas::repository::document),
        help("it was published by another version of pytheas")
    )]
    Document {
        /// The store.
        store: String,
        /// What is wrong.
        source: DocumentError,
    },
}

/// A release, as the signed targets metadata lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name and version.
    pub reference: ReleaseRef,
    /// The platform.
    pub platform: Platform,
    /// Name of the TUF target.
    pub target: String,
    /// The release document.
    pub document: BlobRef,
    /// The tree.
    pub tree: Option<TreeId>,
    /// When it was published.
    pub published: Option<Timestamp>,
}

/// A verified repository.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Store,
    inner: tough::Repository,
}

impl Repository {
    /// The repository in `store`, every signature and hash of its metadata checked by `tough`
    /// from the root metadata `trusted_root` on, and nothing in it expired at `now`.
    ///
    /// # Errors
    /// [`RepositoryError`].
    pub async fn open(
        store: &Store,
        trusted_root: &[u8],
        now: Timestamp,
    ) -> Result<Self, RepositoryError> {
        let repository = Self::open_expired(store, trusted_root).await?;
        let inner = &repository.inner;
        check(store, &inner.root().signed, now)?;
        check(store, &inner.timestamp().signed, now)?;
        check(store, &inner.snapshot().signed, now)?;
        check(store, &inner.targets().signed, now)?;
        Ok(repository)
    }

    /// As [`Self::open`], expired or not: whoever holds the keys may sign it again.
    pub(crate) async fn open_expired(
        store: &Store,
        trusted_root: &[u8],
    ) -> Result<Self, RepositoryError> {
        if store.size_bytes(layout::TIMESTAMP).await?.is_none() {
            return Err(RepositoryError::Empty {
                store: store.to_string(),
            });
        }
        let url = |path: &str| Url::parse(&format!("{BASE}{path}/")).expect("a constant");
        let inner = RepositoryLoader::new(&trusted_root, url("metadata"), url("targets"))
            .transport(StoreTransport(store.clone()))
            // Expiries are checked above: `tough` would use the system's clock.
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .map_err(|source| unverified(store, source))?;
        Ok(Self {
            store: store.clone(),
            inner,
        })
    }

    pub(crate) fn tuf(&self) -> &tough::Repository {
        &self.inner
    }

    /// The root metadata that is in force.
    pub fn root(&self) -> &Root {
        &self.inner.root().signed
    }

    /// Versions of root, targets, snapshot and timestamp metadata.
    pub fn versions(&self) -> [u64; 4] {
        [
            self.inner.root().signed.version.get(),
            self.inner.targets().signed.version.get(),
            self.inner.snapshot().signed.version.get(),
            self.inner.timestamp().signed.version.get(),
        ]
    }

    /// The releases, by name, platform and time of publishing. Targets with other names than a
    /// release's are left out.
    pub fn releases(&self) -> Vec<Listed> {
        let targets = &self.inner.targets().signed.targets;
        let mut all: Vec<Listed> = targets
            .iter()
            .filter_map(|(name, target)| listed(name, target))
            .collect();
        all.sort_by(|a, b| {
            let key = |r: &Listed| (r.reference.name.clone(), r.platform.clone(), r.published);
            key(a).cmp(&key(b)).then_with(|| a.target.cmp(&b.target))
        });
        all
    }

    /// The release document that is the target `name`, verified.
    ///
    /// # Errors
    /// [`RepositoryError::NoRelease`] when there is none.
    pub async fn release(&self, name: &str) -> Result<Release, RepositoryError> {
        let bytes = self.document(name).await?;
        Release::parse(name, &bytes).map_err(|source| RepositoryError::Document {
            store: self.store.to_string(),
            source,
        })
    }

    /// The bytes of the target `name`, verified.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn document(&self, name: &str) -> Result<Vec<u8>, RepositoryError> {
        let missing = || RepositoryError::NoRelease {
            store: self.store.to_string(),
            target: name.to_owned(),
            have: match &self.releases()[..] {
                [] => "it has no releases".into(),
                all => format!(
                    "it has {}",
                    all.iter()
                        .map(|r| r.target.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            },
        };
        let target = TargetName::new(name).map_err(|_| missing())?;
        let stream = self.inner.read_target(&target).await;
        let stream = stream
            .map_err(|e| unverified(&self.store, e))?
            .ok_or_else(missing)?;
        stream
            .into_vec()
            .await
            .map_err(|e| unverified(&self.store, e))
    }
}

impl Repository {
    /// The content of `blob`, which a verified release document names; none when the store does
    /// not have it or has something else in its place.
    ///
    /// # Errors
    /// [`StoreError`](crate::store::StoreError).
    pub async fn blob(&self, blob: &BlobRef) -> Result<Option<Vec<u8>>, crate::store::StoreError> {
        let path = crate::layout::blob(&blob.sha256);
        let bytes = self.store.get(&path, blob.size_bytes).await?;
        Ok(bytes
            .filter(|bytes| Sha256::of(bytes) == blob.sha256)
            .map(|bytes| bytes.to_vec()))
    }
}

fn unverified(store: &Store, source: tough::error::Error) -> RepositoryError {
    RepositoryError::Unverified {
        store: store.to_string(),
        source: Box::new(source),
    }
}

fn check<T: Role>(store: &Store, role: &T, now: Timestamp) -> Result<(), RepositoryError> {
    let expired = role.expires();
    if expired > now {
        return Ok(());
    }
    let (store, role) = (store.to_string(), T::TYPE.to_string());
    Err(RepositoryError::Expired {
        store,
        role,
        expired,
        now,
    })
}

fn listed(name: &TargetName, target: &Target) -> Option<Listed> {
    let parts: Vec<&str> = name.raw().split('/').collect();
    let [app, version, platform, "release.json"] = parts[..] else {
        return None;
    };
    let custom = |key: &str| target.custom.get(CUSTOM)?.get(key).and_then(Value::as_str);
    Some(Listed {
        reference: ReleaseRef {
            name: Name::from_str(app).ok()?,
            version: Version::from_str(version).ok()?,
        },
        platform: platform.parse().ok()?,
        target: name.raw().to_owned(),
        document: BlobRef {
            sha256: Sha256::from_bytes(<[u8; 32]>::try_from(&target.hashes.sha256[..]).ok()?),
            size_bytes: target.length,
        },
        tree: custom("tree").and_then(|text| text.parse().ok()),
        published: custom("published").and_then(|text| text.parse().ok()),
    })
}
