//! Deltas made after publishing, for a pair of releases that somebody asks for, and kept while they
//! are of use.
//!
//! ```text
//! blobs/ab/<sha256>        the delta, like one that was published
//! deltas/<from>-<to>.json  which blob that is: written last, removed first
//! ```
//! Nobody signs them: who makes them has no targets key. Devices check what a delta makes
//! against the signed tree, and fetch contents where it is of no use. The time a pointer was
//! written is when the delta was used last, give or take [`USED_EVERY`]: no other record is kept,
//! so any number of hubs may share a store, and one that is cut off leaves nothing wrong behind.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use miette::Diagnostic;
use pytheas_release::{
    BlobRef, Entry, RelPath, Release, Sha256, Tree, TreeId,
    delta::{self, Files},
};
use tokio::runtime::Handle;

use crate::{
    client::{ContentError, fetch_index, fetch_objects, fetch_tree},
    layout,
    publish::delta::{FolderSink, read_at},
    store::{Lying, Store, StoreError},
    transport::BlockingFetch,
};

/// How often the use of a delta is noted.
pub const USED_EVERY: SignedDuration = SignedDuration::from_hours(6);

/// A delta that was not made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OnDemandError {
    /// One of the releases cannot be read.
    #[error("the releases cannot be fetched back")]
    #[diagnostic(
        code(pytheas::on_demand::content),
        help("is the repository whole? `pytheas export` reads all of a release")
    )]
    Fetch(#[from] ContentError),
    /// The disk.
    #[error("temporary files cannot be written to `{}`", path.display())]
    #[diagnostic(
        code(pytheas::on_demand::io::scratch),
        help("is there room for the files of both releases?")
    )]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The trees do not fit into a delta.
    #[error("no delta can be made of them")]
    #[diagnostic(
        code(pytheas::on_demand::make),
        help("devices fetch the changed files instead; nothing is to do")
    )]
    Make(#[from] delta::MakeError),
}

/// The delta from the release `from` to the release `to`, whose files are read back out of
/// `store` into `scratch` (an empty folder); none when a device fetches less without it.
///
/// Computes for seconds to minutes, on every core: for a thread of its own, whose niceness those
/// that it starts inherit.
///
/// # Errors
/// [`OnDemandError`].
///
/// # Panics
/// On a thread of `runtime`.
pub fn make(
    store: &Store,
    runtime: &Handle,
    from: &Release,
    to: &Release,
    scratch: &Path,
) -> Result<Option<Vec<u8>>, OnDemandError> {
    let mut fetch = BlockingFetch {
        store: store.clone(),
        runtime: runtime.clone(),
    };
    let (old, new) = (fetch_tree(&mut fetch, from)?, fetch_tree(&mut fetch, to)?);
    let index = fetch_index(&mut fetch, to)?;
    let missing = delta::missing(&old, &new);
    // What a device moves without a delta: the tree document, the index, and what it lacks.
    let cost = index
        .cost_bytes(missing.iter().map(|(_, _, object)| object))
        .unwrap_or(u64::MAX)
        .saturating_add(to.tree.document.size_bytes + to.index.size_bytes);
    let wanted = new.objects();
    let mut sink = FolderSink::new(scratch.to_owned());
    fetch_objects(&mut fetch, &index, &wanted, &mut sink, &mut |_| {})?;
    let mut gone = old.objects();
    gone.retain(|object, _| !wanted.contains_key(object));
    let index = fetch_index(&mut fetch, from)?;
    fetch_objects(&mut fetch, &index, &gone, &mut sink, &mut |_| {})?;
    let files = |tree| Fetched { tree, dir: scratch };
    let delta = delta::make(&old, &new, &files(&old), &files(&new))?;
    Ok((delta.len() as u64 <= cost).then_some(delta))
}

/// The files of a tree whose contents lie in a folder, named by their hash.
struct Fetched<'t> {
    tree: &'t Tree,
    dir: &'t Path,
}

impl Files for Fetched<'_> {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self.tree.get(path) {
            Some(Entry::File { sha256, .. }) => {
                read_at(&self.dir.join(sha256.to_string()), offset, len)
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Offers `delta` to devices.
///
/// # Errors
/// [`StoreError`]; then it is not offered.
pub async fn offer(
    store: &Store,
    from: TreeId,
    to: TreeId,
    delta: Vec<u8>,
) -> Result<BlobRef, StoreError> {
    let blob = BlobRef {
        sha256: Sha256::of(&delta),
        size_bytes: delta.len() as u64,
    };
    store.put(&layout::blob(&blob.sha256), delta.into()).await?;
    point(store, from, to, &blob).await?;
    Ok(blob)
}

async fn point(store: &Store, from: TreeId, to: TreeId, blob: &BlobRef) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(blob).unwrap_or_default();
    store
        .put(&layout::offered_delta(from, to), bytes.into())
        .await
}

/// The delta that is offered from tree `from` to tree `to`, if its blob is there; that it is used
/// is noted.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn offered(
    store: &Store,
    from: TreeId,
    to: TreeId,
    now: Timestamp,
) -> Result<Option<BlobRef>, StoreError> {
    let path = layout::offered_delta(from, to);
    let Some(blob) = read(store, &path).await? else {
        return Ok(None);
    };
    if store.size_bytes(&layout::blob(&blob.sha256)).await? != Some(blob.size_bytes) {
        return Ok(None);
    }
    let written = store.lying(&path).await?;
    if written.is_some_and(|file| now.duration_since(file.written) >= USED_EVERY)
        && let Err(error) = point(store, from, to, &blob).await
    {
        // It may be removed a little early.
        tracing::warn!(%error, "the use of `{path}` was not noted");
    }
    Ok(Some(blob))
}

/// What the pointer `path` names; none when it cannot be read as one.
pub(crate) async fn read(store: &Store, path: &str) -> Result<Option<BlobRef>, StoreError> {
    match store.get(path, layout::OFFERED_MAX).await {
        Ok(bytes) => Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())),
        Err(StoreError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which deltas made on demand are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// All of them together have at most so many bytes; those used last are kept.
    pub size_bytes: u64,
    /// One that nobody has asked for so long goes.
    pub unused: SignedDuration,
}

impl Default for Keep {
    /// 2 GB, 30 days.
    fn default() -> Self {
        Self {
            size_bytes: 2_000_000_000,
            unused: SignedDuration::from_hours(24 * 30),
        }
    }
}

/// What was removed, and what is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Deltas removed.
    pub removed: usize,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Deltas left.
    pub kept: usize,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// Removes the deltas made on demand that are to be kept no longer: unused ones, those of releases
/// that are gone (`wanted` says no), and the ones used longest ago above the limit. Blobs in
/// `signed` stay. Nobody else may [`offer`] meanwhile.
///
/// # Errors
/// [`StoreError`]; what was removed until then is gone, and nothing points to it.
pub async fn collect(
    store: &Store,
    keep: Keep,
    now: Timestamp,
    signed: &BTreeSet<Sha256>,
    wanted: impl Fn(TreeId, TreeId) -> bool,
) -> Result<Collected, StoreError> {
    let mut files: Vec<Lying> = store.below(layout::OFFERED).try_collect().await?;
    files.sort_by(|a, b| b.written.cmp(&a.written).then_with(|| a.path.cmp(&b.path)));
    let mut done = Collected::default();
    let (mut kept, mut gone) = (BTreeSet::new(), Vec::new());
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let trees = layout::offered_trees(name).filter(|(from, to)| wanted(*from, *to));
        let blob = read(store, &file.path).await?;
        let is_used = now.duration_since(file.written) < keep.unused;
        let size = blob.map_or(0, |blob| blob.size_bytes);
        let all = done.kept_bytes.saturating_add(size);
        match blob {
            Some(blob) if is_used && trees.is_some() && all <= keep.size_bytes => {
                kept.insert(blob.sha256);
                done.kept += 1;
                done.kept_bytes = all;
            }
            _ => gone.push((file.path, blob)),
        }
    }
    for (path, blob) in gone {
        store.remove(&path).await?;
        done.removed += 1;
        // What another file, or a release, names stays. Whoever reads the blob at the moment
        // fetches contents instead.
        let alone = |blob: &BlobRef| !kept.contains(&blob.sha256) && !signed.contains(&blob.sha256);
        if let Some(blob) = blob.filter(alone)
            && is_delta_for(store, &blob, &path).await?
        {
            store.remove(&layout::blob(&blob.sha256)).await?;
            done.removed_bytes += blob.size_bytes;
        }
    }
    Ok(done)
}

/// Whether `blob` is the delta that the pointer `path` is for: a wrong pointer must not take a pack
/// with it.
async fn is_delta_for(store: &Store, blob: &BlobRef, path: &str) -> Result<bool, StoreError> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((from, to)) = layout::offered_trees(name) else {
        return Ok(false);
    };
    if blob.size_bytes < delta::IDS.end as u64 {
        return Ok(false);
    }
    let range = delta::IDS.start as u64..delta::IDS.end as u64;
    let ids = store
        .read(&layout::blob(&blob.sha256), Some(range), 64)
        .await?;
    let wanted = [&from.0.as_bytes()[..], &to.0.as_bytes()[..]].concat();
    Ok(ids.is_some_and(|ids| ids.bytes[..] == wanted[..]))
}
