//! Publishing a built tree: what is new goes into packs, what is signed goes in last.
//!
//! ```text
//! scan ─▶ packs (objects no earlier pack has) ─▶ index, tree document ─▶ deltas ─▶ upload:
//!   blobs ─▶ release.json ─▶ N.targets.json ─▶ N.snapshot.json ─▶ timestamp.json
//! ```
//! Nothing that is there is changed before the timestamp, so a publish that is cut off anywhere
//! leaves the repository as it was; what it uploaded is used by the next attempt.

mod attach;
mod board;
mod commit;
pub(crate) mod delta;
mod earlier;
mod error;
mod event;
mod keys;
mod pack;
mod turns;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use pytheas_durable::trees::{self, ScanError};
use pytheas_release::{
    BlobRef, BoardImage, BuildRecord, Entry, Platform, RECORD_FILE, Release, ReleaseRef, Sha256,
    Tree, TreeId, TreeRef, Version, compat, target_name,
};

pub use crate::sign::Validity;
use crate::{
    base::Base,
    delegations, garbage,
    keys::PublisherKeys,
    layout,
    repository::RepositoryError,
    store::{Store, StoreError},
};
pub use commit::Reached;
use commit::Target;
pub(crate) use commit::{Batch, CommitError};
pub use earlier::Reason;
pub use error::PublishError;
pub use event::{Event, Events};
pub use keys::{Fresh, Refresh, RoleState, delegate, publish_keys, roles};

/// From how many of the newest releases deltas are made when nobody knows what devices run.
pub const NEWEST: usize = 3;
/// From how many of the releases that devices run, unless something else is said.
pub const IN_USE: usize = 8;

/// A version that devices run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The version.
    pub version: Version,
    /// How many devices do.
    pub devices: u64,
}

/// How to publish.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time.
    pub now: Timestamp,
    /// How long the signatures are good.
    pub validity: Validity,
    /// From how many earlier releases deltas are made at most; when nothing is said, from
    /// [`NEWEST`] of the newest, or from [`IN_USE`] of those that devices run.
    pub deltas: Option<usize>,
    /// From which they are made besides, however old they are.
    pub delta_from: Vec<Version>,
    /// What devices run, where it is known: deltas are made from these, the most used first, and
    /// from the newest, which devices are about to run.
    pub in_use: Vec<InUse>,
    /// zstd's level for packs.
    pub level: i32,
    /// A pack is closed once it is this long, in bytes.
    pub pack_bytes: u64,
    /// What is published beside the tree.
    pub attached: Attached,
    /// Where the targets metadata goes when it lacks signatures, instead of an error.
    pub propose: Option<PathBuf>,
}

/// Files that say something of a release, published beside its tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// An in-toto statement (JSON) that has the tree's id as SHA-256 of a subject. It is put into
    /// a DSSE envelope, signed with the targets key.
    pub statement: Option<PathBuf>,
    /// Nobody named the statement, it lay there: one on another tree is left out, not refused.
    pub statement_was_found: bool,
    /// The bill of materials, as it is.
    pub sbom: Option<PathBuf>,
}

impl Options {
    /// The usual: deltas from the newest releases, zstd level 12, packs of 64 MiB.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            validity: Validity::default(),
            deltas: None,
            delta_from: Vec::new(),
            in_use: Vec::new(),
            level: 12,
            pack_bytes: 64 << 20,
            attached: Attached::default(),
            propose: None,
        }
    }
}

/// A delta that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaMade {
    /// From this release.
    pub from: ReleaseRef,
    /// Why from this one.
    pub reason: Reason,
    /// Its tree.
    pub tree: TreeId,
    /// Length of the delta.
    pub size_bytes: u64,
}

/// A delta that was not made; devices fetch the changed files instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMade {
    /// From this release.
    pub from: ReleaseRef,
    /// Why it would have been.
    pub reason: Reason,
    /// Why it was not.
    pub why: String,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Name and version.
    pub reference: ReleaseRef,
    /// The platform.
    pub platform: Platform,
    /// Name of the TUF target.
    pub target: String,
    /// The tree.
    pub tree: TreeId,
    /// Number of its files.
    pub files: u64,
    /// Their size.
    pub size_bytes: u64,
    /// Whether exactly this was published before, so that nothing was done.
    pub already: bool,
    /// Objects that no earlier release had.
    pub new_objects: usize,
    /// Objects that were there.
    pub reused_objects: usize,
    /// Bytes uploaded, metadata included.
    pub uploaded_bytes: u64,
    /// The deltas, in the order in which they were made.
    pub deltas: Vec<DeltaMade>,
    /// Those that were not made after all.
    pub not_made: Vec<NotMade>,
    /// The signed image, of a release for boards.
    pub board: Option<BoardImage>,
    /// Whether devices see it.
    pub reached: Reached,
}

/// Something to upload.
enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Publishes the tree in the folder `dir`, which [`BuildRecord`] describes, to `store`.
///
/// Publishing the same again changes nothing and is a success; another tree under the same name,
/// version and platform is refused. While somebody else publishes it waits, or goes on from what that
/// one published.
///
/// # Errors
/// [`PublishError`]; whatever it is, devices see the repository as it was before.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn publish(
    store: &Store,
    keys: &PublisherKeys,
    dir: &Path,
    options: &Options,
    events: &Events,
) -> Result<Published, PublishError> {
    let expired = keys.root.signed.expires;
    if expired <= options.now {
        return Err(PublishError::RootExpired {
            expired,
            now: options.now,
        });
    }
    if let Some(repo) = store.lies_in(dir) {
        let dir = dir.to_owned();
        return Err(PublishError::Inside { repo, dir });
    }
    turns::in_turn(store, async || {
        publish_once(store, keys, dir, options, events).await
    })
    .await
}

/// As [`publish`], as far as nobody else comes first.
async fn publish_once(
    store: &Store,
    keys: &PublisherKeys,
    dir: &Path,
    options: &Options,
    events: &Events,
) -> Result<Published, PublishError> {
    let (record, tree, unsigned) = blocking({
        let dir = dir.to_owned();
        move || {
            let (record, tree) = read_built(&dir)?;
            let unsigned = board::read(&dir, &record, &tree)?;
            Ok::<_, PublishError>((record, tree, unsigned))
        }
    })
    .await?;
    let tree_id = tree.id();
    let (files, size_bytes) = (tree.file_count(), tree.size_bytes());
    events.tell(Event::Scanned {
        tree: tree_id,
        files,
        size_bytes,
    });

    let base = Base::load(store, &keys.root).await?;
    base.require_clock(options.now)?;
    let target = target_name(&record.name, &record.version, &record.platform);
    let mut published = Published {
        reference: ReleaseRef {
            name: record.name.clone(),
            version: record.version.clone(),
        },
        platform: record.platform.clone(),
        target: target.clone(),
        tree: tree_id,
        files,
        size_bytes,
        already: false,
        new_objects: 0,
        reused_objects: tree.objects().len(),
        uploaded_bytes: 0,
        deltas: Vec::new(),
        not_made: Vec::new(),
        board: None,
        reached: Reached::Devices,
    };
    if let Some(team) = &keys.team {
        let Some(repository) = &base.repository else {
            return Err(RepositoryError::Empty {
                store: store.to_string(),
            }
            .into());
        };
        delegations::may_sign(&repository.metadata().targets.signed, team, &target)?;
    }
    if let Some(release) = base.release(&target).await? {
        if release.tree.id == tree_id {
            published.already = true;
            published.board = release.board;
            // Only the targets key can keep the releases from expiring: publishing the last one
            // again does, once half of the time is used up.
            if base.targets_grow_old(keys, options) {
                let document = release.encode();
                let same = Target {
                    name: target,
                    document,
                    tree: tree_id,
                };
                let (bytes, reached) = base.commit(keys, same, options, events).await?;
                published.uploaded_bytes = bytes;
                published.reached = reached;
            }
            return Ok(published);
        }
        return Err(PublishError::Taken {
            reference: published.reference,
            platform: published.platform,
            published: release.tree.id,
            yours: tree_id,
        });
    }

    let releases = match &base.repository {
        Some(repository) => earlier::load(store, repository).await?,
        None => Vec::new(),
    };
    let worth_it = match unsigned {
        None => earlier::worth_a_delta(&releases, &published, options)?,
        Some(_) => Vec::new(), // boards take whole images
    };
    let scratch = Arc::new(tempfile::tempdir().map_err(PublishError::Scratch)?);
    let tree = Arc::new(tree);

    // Objects that no earlier pack has go into new packs.
    let known = earlier::known_objects(&releases);
    let new = tree
        .objects()
        .keys()
        .filter(|object| !known.contains_key(*object))
        .copied()
        .collect();
    let packs = blocking({
        let (tree, dir, scratch) = (tree.clone(), dir.to_owned(), scratch.clone());
        let (options, events) = (options.clone(), events.clone());
        move || pack::make(&tree, &new, &dir, scratch.path(), &options, &events)
    })
    .await?;
    let index = earlier::index_of(&tree, &known, &packs);
    published.new_objects = packs.iter().map(|pack| pack.objects.len()).sum();
    published.reused_objects -= published.new_objects;

    let mut uploads: Vec<(BlobRef, Source)> = Vec::new();
    let document = zstd::encode_all(tree.encode().as_slice(), 19).map_err(PublishError::Scratch)?;
    let document = add(&mut uploads, document);
    let index_blob = add(&mut uploads, index.encode());
    // What a device moves without a delta: the tree document, the index, and what it lacks.
    let cost = |old: &Tree| {
        let missing = pytheas_release::delta::missing(old, &tree);
        let objects = index.cost_bytes(missing.iter().map(|(_, _, object)| object));
        objects
            .unwrap_or(u64::MAX)
            .saturating_add(document.size_bytes + index_blob.size_bytes)
    };

    // Deltas from earlier releases of the same app for the same platform.
    let mut deltas = BTreeMap::new();
    for (old, reason) in worth_it {
        let from = old.release.reference();
        let not_made = |why: String| {
            let from = from.clone();
            let event = Event::NoDelta {
                from: from.clone(),
                why: why.clone(),
            };
            events.tell(event);
            NotMade { from, reason, why }
        };
        let made = delta::make(store, old, &tree, dir, &scratch).await;
        match made {
            Ok((old_tree, bytes)) if (bytes.len() as u64) <= cost(&old_tree) => {
                let size_bytes = bytes.len() as u64;
                events.tell(Event::Delta {
                    from: from.clone(),
                    size_bytes,
                });
                let tree = old.release.tree.id;
                published.deltas.push(DeltaMade {
                    from,
                    reason,
                    tree,
                    size_bytes,
                });
                deltas.insert(tree, add(&mut uploads, bytes));
            }
            Ok(_) => {
                let why = "fetching the changed files moves less".to_owned();
                published.not_made.push(not_made(why));
            }
            Err(error) => {
                tracing::warn!(release = %from, "no delta from `{from}`: {error}");
                published.not_made.push(not_made(error.to_string()));
            }
        }
    }

    let board = match unsigned {
        None => None,
        Some(unsigned) => {
            let next = base.next_version(keys).await?;
            let earlier = releases.iter().filter_map(|one| one.release.board);
            let above = earlier.map(|board| u64::from(board.counter) + 1).max();
            let counter = next.max(above.unwrap_or(0));
            Some(unsigned.sign(keys, counter, &mut uploads, events)?)
        }
    };
    published.board = board;
    let (provenance, sbom) = attach::read(keys, &options.attached, tree_id, &mut uploads, events)?;
    let release = Release {
        format: 1,
        name: record.name,
        version: record.version,
        form: record.form,
        platform: record.platform,
        entry: record.entry,
        tree: TreeRef {
            id: tree_id,
            size_bytes,
            files,
            document,
        },
        index: index_blob,
        deltas,
        requires: compat::requires_with_features(
            &record.update.rules,
            !record.update.hooks.is_empty(),
        ),
        conflicts: record.update.rules.conflicts,
        allow_downgrade: record.update.rules.allow_downgrade,
        health: record.health,
        config: record.config,
        interpreter: record.interpreter,
        provenance,
        sbom,
        board,
    };
    uploads.extend(
        packs
            .into_iter()
            .map(|pack| (pack.blob, Source::File(pack.file))),
    );
    for (blob, source) in uploads {
        published.uploaded_bytes += upload_blob(store, &blob, source, options.now, events).await?;
    }
    let target = Target {
        name: target,
        document: release.encode(),
        tree: tree_id,
    };
    let (bytes, reached) = base.commit(keys, target, options, events).await?;
    published.uploaded_bytes += bytes;
    published.reached = reached;
    Ok(published)
}

/// Runs `work`, which computes or reads files, beside the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The record and the tree of a folder that `pytheas build` made.
fn read_built(dir: &Path) -> Result<(BuildRecord, Tree), PublishError> {
    let path = dir.join(RECORD_FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PublishError::NotBuilt {
                dir: dir.to_owned(),
            });
        }
        other => other.map_err(|source| PublishError::Scan {
            dir: dir.to_owned(),
            source: ScanError::Io {
                path: path.clone(),
                source,
            },
        })?,
    };
    let record =
        BuildRecord::parse(&bytes).map_err(|source| PublishError::Record { path, source })?;
    let tree = trees::scan(dir).map_err(|source| PublishError::Scan {
        dir: dir.to_owned(),
        source,
    })?;
    match tree.get(&record.entry) {
        Some(Entry::File { .. }) if record.platform.is_board() => Ok((record, tree)),
        Some(
            Entry::File {
                executable: true, ..
            }
            | Entry::Symlink { .. },
        ) => Ok((record, tree)),
        _ => Err(PublishError::NoEntry {
            entry: record.entry,
        }),
    }
}

/// Puts `bytes` on the list of uploads.
fn add(uploads: &mut Vec<(BlobRef, Source)>, bytes: Vec<u8>) -> BlobRef {
    let blob = BlobRef {
        sha256: Sha256::of(&bytes),
        size_bytes: bytes.len() as u64,
    };
    uploads.push((blob, Source::Bytes(bytes)));
    blob
}

/// Uploads a blob unless it is there; the bytes moved. One that has lain there for long may be
/// garbage that somebody is about to remove.
async fn upload_blob(
    store: &Store,
    blob: &BlobRef,
    source: Source,
    now: Timestamp,
    events: &Events,
) -> Result<u64, StoreError> {
    let path = layout::blob(&blob.sha256);
    let there = store.lying(&path).await?;
    if there.is_some_and(|file| {
        file.size_bytes == blob.size_bytes && now.duration_since(file.written) < garbage::REUSED
    }) {
        return Ok(0);
    }
    match source {
        Source::Bytes(bytes) => store.put(&path, bytes.into()).await?,
        Source::File(file) => store.put_file(&path, &file, blob.size_bytes).await?,
    }
    events.tell(Event::Uploaded {
        path,
        size_bytes: blob.size_bytes,
    });
    Ok(blob.size_bytes)
}
