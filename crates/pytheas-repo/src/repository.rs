//! A repository as the hub and the publisher read it: verified, listed, never trusted further than
//! its signatures reach.

pub(crate) mod load;

use std::str::FromStr;

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_release::{
    BlobRef, DocumentError, Name, Platform, Release, ReleaseRef, Sha256, TreeId, Version,
};
use serde_json::Value;
use tough::{
    TargetName,
    schema::{Role, RoleType, Root, Target},
};

pub use load::Untrusted;
use load::{Metadata, Reader};

use crate::{
    delegations,
    dsse::Signers,
    layout,
    store::{Seen, Store, StoreError},
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
    /// Whoever signs now would sign what every device takes for expired.
    #[error(
        "the clock of this computer says {now}, and the repository in `{store}` was signed at {signed}"
    )]
    #[diagnostic(
        code(pytheas::repository::refused::clock),
        help(
            "set the clock: what is signed now would be too old for devices. If the repository's date is the wrong one, `pytheas keys rotate online` and `pytheas keys publish` begin anew"
        )
    )]
    ClockBehind {
        /// The store.
        store: String,
        /// When its timestamp was signed.
        signed: Timestamp,
        /// The time here.
        now: Timestamp,
    },
    /// It does not verify.
    #[error("the repository in `{store}` does not verify")]
    #[diagnostic(
        code(pytheas::repository::refused::unverified),
        help(
            "is `root.json` the one of this repository? If so, someone or something changed the repository: restore it; after new keys, `pytheas keys publish` signs it again"
        )
    )]
    Unverified {
        /// The store.
        store: String,
        /// What is wrong.
        source: Box<Untrusted>,
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
    metadata: Metadata,
}

impl Repository {
    /// The repository in `store`, every signature and hash of its metadata checked from the root
    /// metadata `trusted_root` on, and nothing in it expired at `now`. A team whose metadata has
    /// expired is left out.
    ///
    /// # Errors
    /// [`RepositoryError`].
    pub async fn open(
        store: &Store,
        trusted_root: &[u8],
        now: Timestamp,
    ) -> Result<Self, RepositoryError> {
        let timestamp = store.look(layout::TIMESTAMP, load::METADATA_MAX).await?;
        let mut repository = Self::open_expired(store, trusted_root, timestamp.as_ref()).await?;
        let metadata = &mut repository.metadata;
        check(store, &metadata.root.signed, now)?;
        if let Some((snapshot, timestamp)) = &metadata.online {
            check(store, &timestamp.signed, now)?;
            check(store, &snapshot.signed, now)?;
        }
        check(store, &metadata.targets.signed, now)?;
        metadata.teams.retain(|_, team| team.signed.expires > now);
        Ok(repository)
    }

    /// As [`Self::open`], expired or not: whoever holds the keys may sign it again.
    pub(crate) async fn open_expired(
        store: &Store,
        trusted_root: &[u8],
        timestamp: Option<&Seen>,
    ) -> Result<Self, RepositoryError> {
        let Some(timestamp) = timestamp else {
            return Err(RepositoryError::Empty {
                store: store.to_string(),
            });
        };
        let metadata = Reader(store).all(trusted_root, timestamp).await?;
        Ok(Self::of(store, metadata))
    }

    /// The repository in `store` that `metadata` describes.
    pub(crate) fn of(store: &Store, metadata: Metadata) -> Self {
        let store = store.clone();
        Self { store, metadata }
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The root metadata that is in force.
    pub fn root(&self) -> &Root {
        &self.metadata.root.signed
    }

    /// Versions of root, targets, snapshot and timestamp metadata.
    pub fn versions(&self) -> [u64; 4] {
        let metadata = &self.metadata;
        [
            metadata.root.signed.version.get(),
            metadata.targets.signed.version.get(),
            metadata.taken.0,
            metadata.taken.1,
        ]
    }

    /// The releases, by name, platform and time of publishing. Targets with other names than a
    /// release's are left out.
    pub fn releases(&self) -> Vec<Listed> {
        let teams = self.metadata.teams.values().flat_map(|t| &t.signed.targets);
        let names = self.metadata.targets.signed.targets.iter().chain(teams);
        let mut all: Vec<Listed> = names
            .filter(|(name, target)| self.find(name).is_some_and(|found| found == *target))
            .filter_map(|(name, target)| listed(name, target))
            .collect();
        all.sort_by(|a, b| {
            let key = |r: &Listed| (r.reference.name.clone(), r.platform.clone(), r.published);
            key(a).cmp(&key(b)).then_with(|| a.target.cmp(&b.target))
        });
        all.dedup();
        all
    }

    /// The target `name`, searched for as devices do (TUF §5.6.7): the targets role first, then
    /// the teams in order, until one may list it and ends the search.
    fn find(&self, name: &TargetName) -> Option<&Target> {
        let targets = &self.metadata.targets.signed;
        if let Some(target) = targets.targets.get(name) {
            return Some(target);
        }
        for role in targets.delegations.iter().flat_map(|all| &all.roles) {
            if !delegations::covers(&role.paths, name.raw()) {
                continue;
            }
            let team = self.metadata.teams.get(&role.name);
            if let Some(target) = team.and_then(|team| team.signed.targets.get(name)) {
                return Some(target);
            }
            if role.terminating {
                return None;
            }
        }
        None
    }

    /// Who must sign for the target `name`: the team that lists it, else the targets role.
    pub fn signers(&self, name: &str) -> Signers {
        let metadata = &self.metadata;
        let targets = &metadata.targets.signed;
        let own = TargetName::new(name).is_ok_and(|name| targets.targets.contains_key(&name));
        let delegations = targets.delegations.iter().filter(|_| !own);
        for all in delegations {
            if let Some(role) = all
                .roles
                .iter()
                .find(|r| delegations::covers(&r.paths, name))
            {
                let (keys, by) = (all.keys.clone(), delegations::signers(role));
                return Signers { keys, by };
            }
        }
        Signers {
            keys: metadata.root.signed.keys.clone(),
            by: crate::sign::role_keys(&metadata.root.signed, RoleType::Targets),
        }
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
        let target = self.find(&target).ok_or_else(missing)?;
        let unverified = |source| RepositoryError::Unverified {
            store: self.store.to_string(),
            source: Box::new(source),
        };
        let sha256 = sha256(target).ok_or_else(missing)?;
        let path = layout::target(name, &sha256);
        let bytes = self.store.get(&path, target.length).await?;
        let bytes = bytes.ok_or_else(|| unverified(Untrusted::Missing(path.clone())))?;
        if bytes.len() as u64 != target.length || Sha256::of(&bytes) != sha256 {
            let why = "it is not the file that was signed for".to_owned();
            return Err(unverified(Untrusted::Wrong { file: path, why }));
        }
        Ok(bytes.to_vec())
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

fn sha256(target: &Target) -> Option<Sha256> {
    <[u8; 32]>::try_from(&target.hashes.sha256[..])
        .ok()
        .map(Sha256::from_bytes)
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
            sha256: sha256(target)?,
            size_bytes: target.length,
        },
        tree: custom("tree").and_then(|text| text.parse().ok()),
        published: custom("published").and_then(|text| text.parse().ok()),
    })
}
