//! Removes what no release needs any more: `pytheas repo gc`.
//!
//! What stays, whatever its age:
//! - every root, timestamp, targets and team metadata file (recovery from a stolen key reads them),
//!   and the snapshot in force;
//! - the release documents that targets or team metadata lists: the one in force, uploaded ones
//!   after it, and those that were in force within the age given;
//! - their trees, content indexes, packs, deltas, bills of materials, provenance, board images;
//! - deltas made on demand between such releases (see [`crate::on_demand`]).
//!
//! All else below `metadata`, `targets`, `blobs` and `deltas` that has the name of a repository's
//! file and is older than the age is garbage: what publishes left that were cut off, old snapshots,
//! releases that were taken back. When anything that should stay cannot be read, nothing is removed.
//!
//! Publishers write blobs before the metadata that needs them: hence the age. One that finds a
//! blob there already that it did not just write writes it again ([`REUSED`]), so an old
//! file is never relied on by metadata to come. A folder is locked meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use miette::Diagnostic;
use pytheas_release::{BlobRef, Name, Platform, Release, Sha256, TreeId};
use tough::schema::{Signed, Targets};

use crate::{
    index::{ContentIndex, IndexError},
    layout, on_demand,
    repository::{Repository, RepositoryError, load::METADATA_MAX},
    store::{Lying, Store, StoreError},
};

/// A publisher uses a blob that is there and younger than this as it is.
pub const REUSED: SignedDuration = SignedDuration::from_hours(12);

/// Longest release document, in bytes.
const DOCUMENT_MAX: u64 = 16 << 20;

/// Garbage that was not collected.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum GarbageError {
    /// The store cannot be listed.
    #[error("what lies in `{store}` cannot be listed or removed over HTTP")]
    #[diagnostic(
        code(pytheas::garbage::http),
        help(
            "run it where the files are: for a hub `--repo DATA/repo` on its machine, or the bucket's own URL"
        )
    )]
    Http {
        /// The store.
        store: String,
    },
    /// The repository does not verify.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] RepositoryError),
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// A team's releases are unknown.
    #[error(
        "the metadata of team `{team}` in `{store}` is not signed by its keys, so nobody can say which files it needs; nothing was removed"
    )]
    #[diagnostic(
        code(pytheas::garbage::team),
        help(
            "publish once as that team (`pytheas publish --as {team}`), or take its delegation back"
        )
    )]
    Team {
        /// The store.
        store: String,
        /// The team.
        team: String,
    },
    /// A file that a release needs.
    #[error("`{path}` in `{store}`, which a release needs, {why}; nothing was removed")]
    #[diagnostic(
        code(pytheas::garbage::damaged),
        help("restore this file from a copy of the repository, then try again")
    )]
    Damaged {
        /// The store.
        store: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Somebody publishes.
    #[error("`{store}` was published to meanwhile; nothing more was removed")]
    #[diagnostic(
        code(pytheas::garbage::changed),
        help("try again when the publishing is over")
    )]
    Changed {
        /// The store.
        store: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The time.
    pub now: Timestamp,
    /// Files written after `now - min_age` stay.
    pub min_age: SignedDuration,
    /// Whether garbage is removed, or only found.
    pub remove: bool,
}

/// One file of garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Its path.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// When it was written.
    pub written: Timestamp,
}

/// What there is in a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What no release needs, sorted by path.
    pub garbage: Vec<Garbage>,
    /// Whether it was removed.
    pub removed: bool,
    /// Releases that live.
    pub releases: usize,
    /// Files that stay because they are needed.
    pub kept: usize,
    /// Their length together.
    pub kept_bytes: u64,
    /// Files that nobody needs and that are not old enough.
    pub young: usize,
    /// Their length together.
    pub young_bytes: u64,
}

impl Found {
    /// Length of the garbage.
    pub fn garbage_bytes(&self) -> u64 {
        self.garbage.iter().map(|file| file.size_bytes).sum()
    }
}

/// Finds the garbage of the repository in `store` and removes it if that is wanted.
/// `trusted_root` is the root metadata to trust, by default the repository's first.
///
/// # Errors
/// [`GarbageError`]; what was removed until then was garbage.
pub async fn collect(
    store: &Store,
    trusted_root: Option<&[u8]>,
    options: &Options,
) -> Result<Found, GarbageError> {
    if !store.can_be_swept() {
        let store = store.to_string();
        return Err(GarbageError::Http { store });
    }
    let _nobody_publishes = store.lock()?;
    let timestamp = store.look(layout::TIMESTAMP, METADATA_MAX).await?;
    let root = match trusted_root {
        Some(root) => root.to_vec(),
        None => store
            .get(&layout::root(1), METADATA_MAX)
            .await?
            .ok_or_else(|| RepositoryError::Empty {
                store: store.to_string(),
            })?
            .to_vec(),
    };
    let repository = Repository::open_expired(store, &root, timestamp.as_ref()).await?;
    let cutoff = options
        .now
        .checked_sub(options.min_age)
        .unwrap_or(Timestamp::MIN);
    let mut sweep = Sweep {
        store,
        repository: &repository,
        cutoff,
        needed: BTreeSet::new(),
        targets: BTreeMap::new(),
        trees: BTreeSet::new(),
    };
    let metadata: Vec<Lying> = store.below("metadata").try_collect().await?;
    sweep.metadata(&metadata).await?;
    sweep.releases().await?;
    let mut found = Found {
        releases: sweep.targets.len(),
        ..Found::default()
    };
    let offered: Vec<Lying> = store.below(layout::OFFERED).try_collect().await?;
    sweep.offered(&offered).await?;
    // Pointers go before what they point to.
    for file in offered.into_iter().chain(metadata) {
        sweep.judge(file, &mut found);
    }
    for folder in ["targets", "blobs"] {
        let mut files = store.below(folder);
        while let Some(file) = files.try_next().await? {
            sweep.judge(file, &mut found);
        }
    }
    if options.remove {
        let now = store.look(layout::TIMESTAMP, METADATA_MAX).await?;
        if now.map(|seen| seen.bytes) != timestamp.map(|seen| seen.bytes) {
            let store = store.to_string();
            return Err(GarbageError::Changed { store });
        }
        for file in &found.garbage {
            // Written again meanwhile: somebody needs it after all.
            let there = store.lying(&file.path).await?;
            if there.is_some_and(|there| there.written == file.written) {
                store.remove(&file.path).await?;
            }
        }
        found.removed = true;
    }
    found.garbage.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Finding out what is needed.
struct Sweep<'a> {
    store: &'a Store,
    repository: &'a Repository,
    cutoff: Timestamp,
    /// Paths that stay.
    needed: BTreeSet<String>,
    /// Live targets by path of their file, with their name, hash and length.
    targets: BTreeMap<String, (String, Sha256, u64)>,
    /// Trees of live releases.
    trees: BTreeSet<(Name, Platform, TreeId)>,
}

impl Sweep<'_> {
    fn damaged(&self, path: &str, why: impl ToString) -> GarbageError {
        GarbageError::Damaged {
            store: self.store.to_string(),
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    /// Marks metadata, and the targets of what lists releases.
    async fn metadata(&mut self, files: &[Lying]) -> Result<(), GarbageError> {
        let metadata = self.repository.metadata();
        let snapshot = metadata.taken.0;
        self.list(&metadata.targets.signed);
        for role in metadata
            .targets
            .signed
            .delegations
            .iter()
            .flat_map(|all| &all.roles)
        {
            match metadata.teams.get(&role.name) {
                Some(team) => self.list(&team.signed),
                None if metadata.meta.contains_key(&format!("{}.json", role.name)) => {
                    return Err(GarbageError::Team {
                        store: self.store.to_string(),
                        team: role.name.clone(),
                    });
                }
                None => {} // delegated, but nothing was published yet
            }
        }
        // When each version of a role was followed by the next one.
        let mut roles: BTreeMap<&str, BTreeMap<u64, &Lying>> = BTreeMap::new();
        for file in files {
            match versioned(&file.path) {
                Some((role, version)) => drop(roles.entry(role).or_default().insert(version, file)),
                None => drop(self.needed.insert(file.path.clone())),
            }
        }
        for (role, versions) in roles {
            let in_force = match role {
                "snapshot" => snapshot,
                role => {
                    let listed = metadata.meta.get(&format!("{role}.json"));
                    listed.map_or(0, |meta| meta.version.get())
                }
            };
            for (version, file) in &versions {
                let next = versions.range(version + 1..).next();
                let followed = next.map_or(Timestamp::MAX, |(_, next)| next.written);
                let is_live = *version >= in_force || followed >= self.cutoff;
                if role != "snapshot" || is_live {
                    self.needed.insert(file.path.clone());
                }
                if is_live && *version != in_force && !matches!(role, "root" | "snapshot") {
                    // What does not parse lists nothing.
                    let bytes = self.store.get(&file.path, METADATA_MAX).await?;
                    let signed = bytes.and_then(|b| serde_json::from_slice(&b).ok());
                    if let Some(targets) = signed {
                        self.list(&Signed::<Targets>::clone(&targets).signed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks the targets that this metadata lists.
    fn list(&mut self, targets: &Targets) {
        for (name, target) in &targets.targets {
            let Ok(sha256) = <[u8; 32]>::try_from(&target.hashes.sha256[..]) else {
                continue;
            };
            let sha256 = Sha256::from_bytes(sha256);
            let path = layout::target(name.raw(), &sha256);
            self.needed.insert(path.clone());
            let described = (name.raw().to_owned(), sha256, target.length);
            self.targets.insert(path, described);
        }
    }

    /// Marks what the live releases consist of.
    async fn releases(&mut self) -> Result<(), GarbageError> {
        let in_force: BTreeSet<String> = self
            .repository
            .releases()
            .into_iter()
            .map(|listed| layout::target(&listed.target, &listed.document.sha256))
            .collect();
        for (path, (name, sha256, length)) in self.targets.clone() {
            if !name.ends_with("/release.json") || length > DOCUMENT_MAX {
                continue; // not ours: the file itself stays
            }
            let result = self.release(&path, &name, &sha256, length).await;
            match result {
                // Uploaded, never seen by a device: nobody can say what it needs beyond this.
                Err(error @ GarbageError::Damaged { .. }) if !in_force.contains(&path) => {
                    tracing::warn!("of `{path}`, which no device sees: {error}");
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn release(
        &mut self,
        path: &str,
        name: &str,
        sha256: &Sha256,
        length: u64,
    ) -> Result<(), GarbageError> {
        let bytes = self.store.get(path, length).await?;
        let bytes = bytes.ok_or_else(|| self.damaged(path, "is missing"))?;
        if Sha256::of(&bytes) != *sha256 {
            return Err(self.damaged(path, "is not what was signed"));
        }
        let release = Release::parse(name, &bytes)
            .map_err(|error| self.damaged(path, format!("cannot be read: {error}")))?;
        let mut blobs = vec![release.tree.document, release.index];
        blobs.extend(release.deltas.values());
        blobs.extend(release.provenance);
        blobs.extend(release.sbom);
        if let Some(board) = release.board {
            blobs.push(board.image);
            blobs.extend(board.lines);
        }
        let index_path = layout::blob(&release.index.sha256);
        let index = self.repository.blob(&release.index).await?;
        let index =
            index.ok_or_else(|| self.damaged(&index_path, "is missing or not what was signed"))?;
        let index = ContentIndex::parse(&index).map_err(|error: IndexError| {
            self.damaged(&index_path, format!("cannot be read: {error}"))
        })?;
        blobs.extend(index.packs);
        let paths = blobs
            .iter()
            .map(|blob: &BlobRef| layout::blob(&blob.sha256));
        self.needed.extend(paths);
        self.trees
            .insert((release.name, release.platform, release.tree.id));
        Ok(())
    }

    /// Marks deltas made on demand between live releases of one app.
    async fn offered(&mut self, files: &[Lying]) -> Result<(), GarbageError> {
        for file in files {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let Some((from, to)) = layout::offered_trees(name) else {
                self.needed.insert(file.path.clone()); // not ours
                continue;
            };
            let live = self.trees.iter().any(|(app, platform, tree)| {
                *tree == to && self.trees.contains(&(app.clone(), platform.clone(), from))
            });
            if let Some(blob) = on_demand::read(self.store, &file.path)
                .await?
                .filter(|_| live)
            {
                self.needed.insert(file.path.clone());
                self.needed.insert(layout::blob(&blob.sha256));
            }
        }
        Ok(())
    }

    /// Counts a file, and puts it on the list if it is garbage.
    fn judge(&self, file: Lying, found: &mut Found) {
        if self.needed.contains(&file.path) || !is_ours(&file.path) {
            found.kept += 1;
            found.kept_bytes += file.size_bytes;
        } else if file.written >= self.cutoff {
            found.young += 1;
            found.young_bytes += file.size_bytes;
        } else {
            found.garbage.push(Garbage {
                path: file.path,
                size_bytes: file.size_bytes,
                written: file.written,
            });
        }
    }
}

/// Role and version of a metadata file.
fn versioned(path: &str) -> Option<(&str, u64)> {
    let name = path.strip_prefix("metadata/")?.strip_suffix(".json")?;
    let (version, role) = name.split_once('.')?;
    Some((role, version.parse().ok()?))
}

/// Whether a repository's file may be called so; others are not ours to remove.
fn is_ours(path: &str) -> bool {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["metadata", _] => versioned(path).is_some(),
        ["blobs", folder, name] => {
            name.parse::<Sha256>().is_ok() && name.starts_with(folder) && folder.len() == 2
        }
        ["targets", .., name] => name
            .split_once('.')
            .is_some_and(|(hash, rest)| hash.parse::<Sha256>().is_ok() && !rest.is_empty()),
        [layout::OFFERED, name] => layout::offered_trees(name).is_some(),
        _ => false,
    }
}
