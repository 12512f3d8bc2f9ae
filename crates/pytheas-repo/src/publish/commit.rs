//! The last step: metadata signed and written so that readers see all of it or none.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use pytheas_release::{Release, Sha256, TreeId};
use serde_json::json;
use tough::{
    TargetName,
    schema::{self, DelegatedRole, Delegations, Hashes, Metafile, Root, Signed, Targets},
};

use super::{Event, Events, Options, PublishError};
use crate::{
    base::{Base, next_free},
    client::ROOT_MAX,
    delegations,
    keys::{
        OnlineKeys, PublisherKeys, RootFile,
        proposal::{OfTeam, Proposal},
    },
    layout,
    repository::{CUSTOM, RepositoryError, load::METADATA_MAX},
    sign::{self, SignError, SignedFile, Validity},
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

/// How far a commit came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Devices see it.
    Devices,
    /// The team's metadata is there; whoever has the online keys (the hub) takes it up.
    Uploaded,
    /// It waits for signatures in this file.
    Proposed(PathBuf),
}

/// What one snapshot brings.
pub(crate) struct Batch<'a> {
    pub(crate) root: &'a Root,
    /// New metadata of `targets` and teams.
    pub(crate) roles: Vec<(String, SignedFile<Targets>)>,
    pub(crate) validity: &'a Validity,
    pub(crate) now: Timestamp,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) snapshot: u64,
    pub(crate) timestamp: u64,
    pub(crate) expires: Timestamp,
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
    pub(crate) fn root<'a>(&'a self, keys: &'a RootFile) -> &'a Root {
        match &self.repository {
            Some(repository) if repository.root().version > keys.signed.version => {
                repository.root()
            }
            _ => &keys.signed,
        }
    }

    /// Whether the metadata that lists `name` has used up half of its time.
    pub(super) fn targets_grow_old(&self, keys: &PublisherKeys, options: &Options) -> bool {
        let metadata = self.repository.as_ref().map(|r| r.metadata());
        let role = match &keys.team {
            Some(team) => metadata.and_then(|m| m.teams.get(team)),
            None => metadata.map(|m| &m.targets),
        };
        role.is_some_and(|role| {
            let left = role.signed.expires.duration_since(options.now);
            left <= options.validity.targets / 2
        })
    }

    /// The version that the metadata which `keys` sign will have, unless somebody else publishes.
    pub(super) async fn next_version(&self, keys: &PublisherKeys) -> Result<u64, StoreError> {
        let metadata = self.repository.as_ref().map(|r| r.metadata());
        let (role, taken) = match &keys.team {
            None => ("targets", self.targets_version()),
            Some(team) => {
                let listed = metadata.and_then(|m| m.meta.get(&format!("{team}.json")));
                (team.as_str(), listed.map(|meta| meta.version.get()))
            }
        };
        let version = next_free(&self.store, taken.unwrap_or(0), role).await?;
        Ok(version.get())
    }

    /// The targets metadata that comes after what is there.
    pub(crate) async fn next_targets(
        &self,
        now: Timestamp,
        valid: SignedDuration,
    ) -> Result<Targets, StoreError> {
        let old = self.repository.as_ref().map(|r| &r.metadata().targets);
        self.after(old, "targets", now, valid).await
    }

    async fn after(
        &self,
        old: Option<&Signed<Targets>>,
        role: &str,
        now: Timestamp,
        valid: SignedDuration,
    ) -> Result<Targets, StoreError> {
        let taken = old.map_or(0, |old| old.signed.version.get());
        let version = next_free(&self.store, taken, role).await?;
        let expires = sign::expiry(now, valid);
        let mut targets = Targets::new(sign::SPEC_VERSION.to_owned(), version, expires);
        targets.delegations = None;
        if let Some(old) = old {
            targets.targets.clone_from(&old.signed.targets);
            targets._extra.clone_from(&old.signed._extra);
            targets.delegations.clone_from(&old.signed.delegations);
        }
        Ok(targets)
    }

    /// The newest metadata of a team that its keys signed, uploaded or in force.
    pub(crate) async fn newest_of_team(
        &self,
        all: &Delegations,
        role: &DelegatedRole,
    ) -> Result<Option<(Signed<Targets>, Metafile)>, StoreError> {
        let metadata = self.repository.as_ref().map(|r| r.metadata());
        let listed = metadata.and_then(|m| m.meta.get(&format!("{}.json", role.name)));
        let mut version = listed.map_or(0, |meta| meta.version.get());
        let mut newest = None;
        loop {
            version = version.saturating_add(1);
            let file = layout::role(&role.name, Some(version));
            let Some(bytes) = self.store.get(&file, METADATA_MAX).await? else {
                return Ok(newest);
            };
            let Ok(signed) = serde_json::from_slice::<Signed<Targets>>(&bytes) else {
                continue;
            };
            let fits = all.verify_role(&signed, &role.name).is_ok()
                && signed.signed.version.get() == version
                && signed.signed.delegations.is_none()
                && signed
                    .signed
                    .targets
                    .keys()
                    .all(|name| delegations::covers(&role.paths, name.raw()));
            if fits {
                let meta = Metafile {
                    length: Some(bytes.len() as u64),
                    hashes: Some(Hashes {
                        sha256: Sha256::of(&bytes).as_bytes().to_vec().into(),
                        _extra: HashMap::new(),
                    }),
                    version: signed.signed.version,
                    _extra: HashMap::new(),
                };
                newest = Some((signed, meta));
            }
        }
    }

    /// Metadata of teams that was uploaded and is in no snapshot yet.
    pub(crate) async fn uploaded(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(String, Signed<Targets>, Metafile)>, StoreError> {
        let mut all = Vec::new();
        let targets = self.repository.as_ref().map(|r| &r.metadata().targets);
        let delegations = targets.and_then(|targets| targets.signed.delegations.as_ref());
        if let Some(delegations) = delegations {
            for role in &delegations.roles {
                if let Some((signed, meta)) = self.newest_of_team(delegations, role).await?
                    && signed.signed.expires > now
                {
                    all.push((role.name.clone(), signed, meta));
                }
            }
        }
        Ok(all)
    }

    /// Publishes `target`. The bytes written, and how far it came.
    pub(super) async fn commit(
        mut self,
        keys: &PublisherKeys,
        target: Target,
        options: &Options,
        events: &Events,
    ) -> Result<(u64, Reached), PublishError> {
        let mut written = 0;
        if keys.team.is_none() {
            written += put_roots(&self.store, keys, events).await?;
        }
        let sha256 = Sha256::of(&target.document);
        let path = layout::target(&target.name, &sha256);
        written += put(&self.store, &path, &target.document, events).await?;
        for attempt in 1.. {
            match self.attempt(keys, &target, options, events).await {
                Ok((bytes, reached)) => return Ok((written + bytes, reached)),
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
    ) -> Result<(u64, Reached), PublishError> {
        let root = self.root(&keys.root);
        if let Some(team) = &keys.team {
            return self.attempt_as(team, keys, target, options, events).await;
        }
        let (now, valid) = (options.now, options.validity.targets);
        let mut targets = self.next_targets(now, valid).await?;
        list(&mut targets, target, options)?;
        let by = sign::role_keys(root, schema::RoleType::Targets);
        let file = match sign::sign(targets.clone(), "targets", &by, &keys.signers) {
            Err(SignError::TooFew { .. }) if options.propose.is_some() => {
                let path = options.propose.as_deref().unwrap_or(Path::new(""));
                propose(targets, keys, path)?;
                return Ok((0, Reached::Proposed(path.to_owned())));
            }
            other => other?,
        };
        let version = file.signed.signed.version.get();
        let batch = Batch {
            root,
            roles: vec![("targets".to_owned(), file)],
            validity: &options.validity,
            now,
        };
        let written = self.write(keys.online()?, batch, events).await?;
        events.tell(Event::Committed {
            targets_version: version,
        });
        Ok((written.bytes, Reached::Devices))
    }

    /// The metadata of `team` that comes after what is there; who delegates to the team, and how.
    pub(super) async fn next_of_team(
        &self,
        team: &str,
        now: Timestamp,
        valid: SignedDuration,
    ) -> Result<(Targets, &Signed<Targets>, &DelegatedRole), PublishError> {
        let Some(repository) = &self.repository else {
            return Err(RepositoryError::Empty {
                store: self.store.to_string(),
            }
            .into());
        };
        let metadata = repository.metadata();
        let (all, role) = delegations::role(&metadata.targets.signed, team)?;
        let newest = self.newest_of_team(all, role).await?;
        let old = newest.as_ref().map(|(signed, _)| signed);
        let old = old.or_else(|| metadata.teams.get(team));
        let mut targets = self.after(old, team, now, valid).await?;
        // Never below what a snapshot has listed, also when new keys begin with an empty list.
        if let Some(listed) = metadata.meta.get(&format!("{team}.json"))
            && targets.version <= listed.version
        {
            targets.version = next_free(&self.store, listed.version.get(), team).await?;
        }
        Ok((targets, &metadata.targets, role))
    }

    async fn attempt_as(
        &self,
        team: &str,
        keys: &PublisherKeys,
        target: &Target,
        options: &Options,
        events: &Events,
    ) -> Result<(u64, Reached), PublishError> {
        let (now, valid) = (options.now, options.validity.targets);
        let (mut targets, delegator, role) = self.next_of_team(team, now, valid).await?;
        list(&mut targets, target, options)?;
        // What the team may not sign any more would make the hub leave all of it out.
        targets
            .targets
            .retain(|name, _| delegations::covers(&role.paths, name.raw()));
        let by = delegations::signers(role);
        let file = match sign::sign(targets.clone(), team, &by, &keys.signers) {
            Err(SignError::TooFew { .. }) if options.propose.is_some() => {
                let path = options.propose.as_deref().unwrap_or(Path::new(""));
                let mut signed = unsigned(targets);
                sign::add_signatures(&mut signed, &by.keyids, &keys.signers)?;
                let of_team = OfTeam {
                    team: team.to_owned(),
                    targets: delegator.clone(),
                    signed,
                };
                Proposal::of_team(&keys.root, of_team).write(path)?;
                return Ok((0, Reached::Proposed(path.to_owned())));
            }
            other => other?,
        };
        let version = file.signed.signed.version.get();
        let Some(online) = &keys.online else {
            let path = layout::role(team, Some(version));
            let bytes = Bytes::from(file.bytes);
            let size_bytes = bytes.len() as u64;
            self.store.create(&path, bytes).await?;
            events.tell(Event::Uploaded { path, size_bytes });
            return Ok((size_bytes, Reached::Uploaded));
        };
        let batch = Batch {
            root: self.root(&keys.root),
            roles: vec![(team.to_owned(), file)],
            validity: &options.validity,
            now,
        };
        let written = self.write(online, batch, events).await?;
        events.tell(Event::Committed {
            targets_version: version,
        });
        Ok((written.bytes, Reached::Devices))
    }

    /// Writes the metadata of `batch`, and with it what teams have uploaded: a new snapshot, and
    /// the timestamp that makes devices see it.
    pub(crate) async fn write(
        &self,
        online: &OnlineKeys,
        batch: Batch<'_>,
        events: &Events,
    ) -> Result<Written, CommitError> {
        let metadata = self.repository.as_ref().map(|r| r.metadata());
        let mut meta = metadata.map_or_else(HashMap::new, |m| m.meta.clone());
        for (team, _, described) in self.uploaded(batch.now).await? {
            meta.insert(format!("{team}.json"), described);
        }
        for (role, file) in &batch.roles {
            meta.insert(format!("{role}.json"), file.described());
        }
        let (snapshot_now, timestamp_now) = metadata.map_or((0, 0), |m| m.taken);
        let version = next_free(&self.store, snapshot_now, "snapshot").await?;
        let (root, valid) = (batch.root, batch.validity);
        let expires = sign::expiry(batch.now, valid.snapshot);
        let snapshot = sign::snapshot(meta, version, expires, root, &online.keys)?;
        let timestamp_version = NonZeroU64::MIN.saturating_add(timestamp_now);
        let expires = sign::expiry(batch.now, valid.timestamp);
        let timestamp = sign::timestamp(
            snapshot.described(),
            timestamp_version,
            batch.now,
            expires,
            root,
            &online.keys,
        )?;

        let mut bytes = 0;
        let roles = batch.roles.into_iter().map(|(role, file)| {
            let version = file.signed.signed.version.get();
            (layout::role(&role, Some(version)), file.bytes)
        });
        let snapshot = (layout::snapshot(version.get()), snapshot.bytes);
        for (path, content) in roles.chain([snapshot]) {
            let size_bytes = content.len() as u64;
            self.store.create(&path, Bytes::from(content)).await?;
            events.tell(Event::Uploaded { path, size_bytes });
            bytes += size_bytes;
        }
        let content = Bytes::from(timestamp.bytes);
        let size_bytes = content.len() as u64;
        self.store
            .replace(layout::TIMESTAMP, content, self.timestamp.as_ref())
            .await?;
        events.tell(Event::Uploaded {
            path: layout::TIMESTAMP.to_owned(),
            size_bytes,
        });
        Ok(Written {
            bytes: bytes + size_bytes,
            snapshot: version.get(),
            timestamp: timestamp_version.get(),
            expires,
        })
    }
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<CommitError> for PublishError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Sign(error) => error.into(),
        }
    }
}

fn unsigned(signed: Targets) -> Signed<Targets> {
    let signatures = Vec::new();
    Signed { signed, signatures }
}

/// Keeps targets metadata that lacks signatures, with those of the keys that are here.
pub(super) fn propose(
    targets: Targets,
    keys: &PublisherKeys,
    path: &Path,
) -> Result<(), PublishError> {
    let mut signed = unsigned(targets);
    let by = sign::role_keys(&keys.root.signed, schema::RoleType::Targets);
    sign::add_signatures(&mut signed, &by.keyids, &keys.signers)?;
    Ok(Proposal::targets(&keys.root, signed).write(path)?)
}

/// Puts `target` on the list. Signed again, a release keeps the day it was published on.
fn list(targets: &mut Targets, target: &Target, options: &Options) -> Result<(), PublishError> {
    let name = TargetName::new(target.name.as_str())
        .map_err(|error| SignError::Encode(Box::new(error)))?;
    targets
        .targets
        .entry(name)
        .or_insert_with(|| described(target, options));
    Ok(())
}

/// Puts the versions of the root metadata that the folder of keys has where devices look for them,
/// in order. What lies there and is no successor of the root before it is replaced: somebody who
/// could write to the store, but had no root key, put it there. The bytes written.
pub(crate) async fn put_roots(
    store: &Store,
    keys: &PublisherKeys,
    events: &Events,
) -> Result<u64, PublishError> {
    let mut written = 0;
    let mut before: Option<RootFile> = None;
    for root in keys.root.versions(&keys.dir)? {
        let path = layout::root(root.signed.version.get());
        match store.get(&path, ROOT_MAX).await? {
            None => {
                // Somebody else's successor of the root before it stays.
                let bytes = Bytes::copy_from_slice(&root.bytes);
                let size_bytes = bytes.len() as u64;
                store.create(&path, bytes).await?;
                events.tell(Event::Uploaded { path, size_bytes });
                written += size_bytes;
            }
            Some(bytes) if bytes == root.bytes => {}
            Some(bytes) => {
                let other = RootFile::check(&bytes);
                // Somebody else put the same into force, with other signatures.
                let same = |other: &RootFile| {
                    let follows = before.as_ref().is_none_or(|old| other.follows(old).is_ok());
                    other.signed == root.signed && follows
                };
                if other.as_ref().is_some_and(same) {
                    before = Some(root);
                    continue;
                }
                let junk = before
                    .as_ref()
                    .is_some_and(|old| other.is_none_or(|other| other.follows(old).is_err()));
                if !junk {
                    return Err(PublishError::OtherRoot {
                        store: store.to_string(),
                        path,
                    });
                }
                written += put(store, &path, &root.bytes, events).await?;
            }
        }
        before = Some(root);
    }
    Ok(written)
}

fn described(target: &Target, options: &Options) -> schema::Target {
    let published = sign::expiry(options.now, SignedDuration::ZERO).to_string();
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
