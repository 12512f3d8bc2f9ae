//! Gets the content that the device lacks: by the delta if one was made for what runs here, else
//! object by object out of the packs.
//!
//! ```text
//! downloads/tree-<new>/delta             how far the delta has been applied (see `by_delta`)
//! downloads/tree-<new>/release.json      the release document, kept from the check
//! downloads/tree-<new>/tree              the new tree's document
//! downloads/tree-<new>/offered           the delta that the hub has made on demand (see `offered`)
//! downloads/tree-<new>/objects/<sha256>  contents, verified; `.part` while one is written
//! ```
//! Broken off at any point, it goes on where it stopped. Files that the new tree shares with the
//! running one are not read here the first time: the staged tree is checked before it becomes a
//! slot (see `slots`), and when that finds a damaged one, the update comes here once more, reads
//! them all, and fetches what is damaged like a new one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
};

use pytheas_durable::{faults, trees};
use pytheas_release::{
    BlobRef, Entry, RelPath, Release, Sha256, Tree,
    delta::{DeltaError, ObjectSink},
};
use pytheas_repo::{client::Client, fetch::Fetch, index::ContentIndex};
use pytheas_update::{Failure, Job, Reason};
use tracing::{info, warn};

use crate::{
    by_delta::{self, Place},
    failure::{Trouble, content_trouble, device_failure, metadata_trouble},
    paths::StateDir,
    peers::Peers,
    slots,
    written::Written,
};

/// Room that is left free for everything else.
const RESERVE_BYTES: u64 = 1 << 20;
/// What a file costs beside its content: its last block, its inode, its name.
const PER_FILE_BYTES: u64 = 4096;

/// Keeps the release document, so that a restart needs no network to know what it was doing.
///
/// # Errors
/// A [`Failure`] of the device.
pub(crate) fn keep_release(dir: &StateDir, release: &Release) -> Result<(), Failure> {
    let path = dir.fetched_release(release.tree.id);
    let folder = dir.fetched(release.tree.id);
    pytheas_durable::create_dir_all(&folder)
        .and_then(|()| pytheas_durable::replace(&path, &release.encode()))
        .map_err(|error| device_failure("write", &path, &error))
}

/// Makes everything that `job` needs lie on the device. Where the check of the new tree `trusts` what
/// it has in common with the running slot, it is done ahead as well.
///
/// # Errors
/// [`Trouble::Later`] when the network is away; [`Trouble::Failed`] when trying again is no use.
pub(crate) fn fetch(
    dir: &StateDir,
    job: &Job,
    transport: &mut dyn Fetch,
    peers: &mut Peers,
    written: &Written,
    trusts: bool,
) -> Result<(), Trouble> {
    let to = job.to.tree;
    if dir.slot(to).exists() {
        match slots::mend(dir, to) {
            Ok(None) => return Ok(()), // the previous release is wanted again
            Ok(Some(damage)) => warn!(tree = %to, "the slot of {to} is damaged ({damage})"),
            Err(error) => warn!(tree = %to, "the slot of {to} cannot be read: {error}"),
        }
        slots::discard(dir, to).map_err(|e| Trouble::Failed(slot_failure(&e)))?;
    }
    let objects = dir.objects(to);
    pytheas_durable::create_dir_all(&objects)
        .map_err(|error| device_failure("create", &objects, &error))?;
    let mut client = Client::open(dir.device(), transport).map_err(metadata_trouble)?;
    let mut fetching = Fetching {
        dir,
        job,
        release: release(dir, job, &mut client)?,
        old: job
            .from
            .as_ref()
            .and_then(|from| slots::document(dir, from.tree)),
        written,
    };
    fetching.run(&mut client, peers)?;
    drop(fetching); // its trees are large
    // The objects must not be lost once the machine says that they are there. While the disk works,
    // the next steps are done ahead, of which nothing counts but in this process.
    written.take_staged(&dir.staged(to));
    written.take_checked(&dir.staged(to));
    thread::scope(|scope| {
        let ahead = || stage_ahead(dir, job, written, trusts);
        let ahead = thread::Builder::new().spawn_scoped(scope, ahead);
        let synced = trees::sync(&objects);
        if let Ok(ahead) = ahead {
            let _or_in_their_turn = ahead.join();
        }
        synced
    })
    .map_err(|error| device_failure("sync", &objects, &error))?;
    Ok(())
}

/// Puts the new tree together and checks it; if that fails, the steps themselves say why.
fn stage_ahead(dir: &StateDir, job: &Job, written: &Written, trusts: bool) {
    let Ok(bytes) = fs::read(dir.fetched_tree(job.to.tree)) else {
        return;
    };
    let Some(tree) = Tree::parse(&bytes)
        .ok()
        .filter(|tree| tree.id() == job.to.tree)
    else {
        return;
    };
    let from = job.from.as_ref().map(|from| from.tree);
    if slots::put_together(dir, &tree, from).is_ok() {
        written.note_staged(dir.staged(job.to.tree));
        if let Some(from) = from.filter(|_| trusts) {
            slots::check_ahead(dir, &tree, from, written);
        }
    }
}

/// The release document, from the check or, if that got lost, checked again.
pub(crate) fn release(
    dir: &StateDir,
    job: &Job,
    client: &mut Client<'_>,
) -> Result<Release, Trouble> {
    let target = job.target.as_deref().unwrap_or_default();
    if let Ok(bytes) = fs::read(dir.fetched_release(job.to.tree))
        && let Ok(release) = Release::parse(target, &bytes)
        && release.tree.id == job.to.tree
    {
        return Ok(release);
    }
    client
        .refresh(crate::clock::now())
        .map_err(metadata_trouble)?;
    let platform = target
        .split('/')
        .nth(2)
        .and_then(|platform| platform.parse().ok());
    let Some(platform) = platform else {
        return Err(Failure::new(Reason::Content, format!("`{target}` is no release")).into());
    };
    let release = client
        .fetch_release(target, &platform)
        .map_err(content_trouble)?;
    if release.tree.id != job.to.tree {
        let message = format!(
            "`{target}` was tree {} when the update began and is tree {} now",
            job.to.tree, release.tree.id
        );
        return Err(Failure::new(Reason::Content, message).into());
    }
    keep_release(dir, &release)?;
    Ok(release)
}

struct Fetching<'a> {
    dir: &'a StateDir,
    job: &'a Job,
    release: Release,
    /// The running tree.
    old: Option<Tree>,
    /// Is told what was made by a delta.
    written: &'a Written,
}

impl Fetching<'_> {
    fn run(&mut self, client: &mut Client<'_>, peers: &mut Peers) -> Result<(), Trouble> {
        let mut tree = self.known_tree();
        if self.ask_peers(peers, &mut tree)? {
            return Ok(());
        }
        let mut index = None;
        let mut made_now = false;
        let offered = match self.usable_delta() {
            Some(_) => None,
            None => self.offered_delta(client),
        };
        if let Some(delta) = self.usable_delta().or(offered) {
            // The delta carries the new tree, and was only published because it is the cheapest way
            // for a device that has nothing yet. Whether it still is when an earlier try has
            // brought the tree's document and some contents, the index tells.
            let documents = self.release.tree.document.size_bytes + self.release.index.size_bytes;
            let cheaper = tree.is_none() || delta.size_bytes <= documents || {
                let tree = self.tree(client, &mut tree)?;
                let missing = self.missing(tree, false)?;
                let index = index.insert(client.index(&self.release).map_err(content_trouble)?);
                delta.size_bytes <= cost(index, &missing)?
            };
            if cheaper {
                let made = match offered {
                    None => self.by_delta(client, &delta),
                    Some(_) => self.by_offered(client, &delta),
                };
                match made {
                    Ok(made) => {
                        tree = Some(made);
                        made_now = true;
                    }
                    Err(DeltaTrouble::Trouble(trouble)) => return Err(trouble),
                    Err(DeltaTrouble::Unusable(error)) => {
                        let text = crate::http::chain(&error);
                        warn!("the delta is of no use ({text}); fetching the content instead");
                    }
                }
            }
        }
        let tree = self.tree(client, &mut tree)?;
        let missing = self.missing(tree, made_now)?;
        if missing.is_empty() {
            return Ok(());
        }
        let index = match index {
            Some(index) => index,
            None => client.index(&self.release).map_err(content_trouble)?,
        };
        self.require_space(missing.values().sum::<u64>(), missing.len())?;
        info!(
            objects = missing.len(),
            size_bytes = cost(&index, &missing)?,
            "fetching {} objects",
            missing.len()
        );
        let mut sink = ObjectFiles::new(self.dir.objects(self.job.to.tree));
        client
            .objects(&index, &missing, &mut sink, &mut |_| {})
            .map_err(content_trouble)
    }

    /// Gets what peers can give; whether nothing is missing after that.
    fn ask_peers(&self, peers: &mut Peers, tree: &mut Option<Tree>) -> Result<bool, Trouble> {
        let Some((found, have)) = peers.tree(self.job.to.tree) else {
            return Ok(false);
        };
        if tree.is_none() {
            self.keep_tree(&found)?;
        }
        let tree = tree.get_or_insert(found);
        let missing = self.missing(tree, false)?;
        self.require_space(missing.values().sum::<u64>(), missing.len())?;
        let mut sink = ObjectFiles::new(self.dir.objects(self.job.to.tree));
        peers.objects(&have, &missing, &mut sink);
        let objects = self.dir.objects(self.job.to.tree);
        let came = |sha256: &Sha256, size| has(&objects.join(sha256.to_string()), size);
        Ok(missing.iter().all(|(sha256, size)| came(sha256, *size)))
    }

    /// The new tree's document, if an earlier try has left it here.
    fn known_tree(&self) -> Option<Tree> {
        let bytes = fs::read(self.dir.fetched_tree(self.job.to.tree)).ok()?;
        let tree = Tree::parse(&bytes).ok()?;
        (tree.id() == self.job.to.tree).then_some(tree)
    }

    fn keep_tree(&self, tree: &Tree) -> Result<(), Trouble> {
        let path = self.dir.fetched_tree(self.job.to.tree);
        pytheas_durable::replace(&path, &tree.encode())
            .map_err(|error| device_failure("write", &path, &error).into())
    }

    fn tree<'t>(
        &self,
        client: &mut Client<'_>,
        known: &'t mut Option<Tree>,
    ) -> Result<&'t Tree, Trouble> {
        if known.is_none() {
            let tree = client.tree(&self.release).map_err(content_trouble)?;
            self.keep_tree(&tree)?;
            *known = Some(tree);
        }
        Ok(known.as_ref().expect("it was just put there"))
    }

    /// The delta from what runs here, unless a first try with it gave a damaged tree.
    fn usable_delta(&self) -> Option<BlobRef> {
        let from = self.job.from.as_ref()?;
        self.old.as_ref()?;
        self.release
            .deltas
            .get(&from.tree)
            .copied()
            .filter(|_| self.job.attempt == 0)
    }

    fn by_delta(&self, client: &mut Client<'_>, blob: &BlobRef) -> Result<Tree, DeltaTrouble> {
        let (Some(old), Some(from)) = (&self.old, &self.job.from) else {
            unreachable!("a delta is only used with an old tree");
        };
        info!(
            size_bytes = blob.size_bytes,
            "applying the delta, {} bytes", blob.size_bytes
        );
        let to = self.job.to.tree;
        let place = Place {
            folder: self.dir.fetched(to),
            objects: self.dir.objects(to),
            new: to,
            old,
            files: &trees::Folder(self.dir.slot(from.tree)),
            written: self.written,
        };
        let new = place.apply(client, blob, |head| -> Result<(), DeltaTrouble> {
            self.is_plausible(head, blob)?;
            // The packed segment at hand may have to be kept when the network goes away.
            let largest = blob
                .size_bytes
                .min(pytheas_release::delta::SEGMENT_MAX as u64);
            Ok(self.require_space(head.content_bytes() + largest, head.contents())?)
        })?;
        self.keep_tree(&new)?;
        Ok(new)
    }

    /// What `tree` has and the device has not: neither fetched already nor in the running slot.
    /// Contents that were `made_now` were hashed on their way to the disk. The running slot's files
    /// are read when the staged tree was damaged before.
    fn missing(&self, tree: &Tree, made_now: bool) -> Result<BTreeMap<Sha256, u64>, Trouble> {
        let trusted = |first: bool, path: &Path, sha256: Sha256, size: u64| {
            if first && self.job.attempt == 0 {
                has(path, size)
            } else {
                is(path, sha256, size)
            }
        };
        let here = self.job.from.as_ref().map(|from| self.dir.slot(from.tree));
        let mut old_files: BTreeMap<Sha256, &RelPath> = BTreeMap::new();
        for (path, entry) in self.old.iter().flat_map(Tree::iter) {
            if let Entry::File { sha256, .. } = entry {
                old_files.entry(*sha256).or_insert(path);
            }
        }
        let objects = self.dir.objects(self.job.to.tree);
        let fetched_here = slots::contents(&objects).unwrap_or_default();
        let mut missing = tree.objects();
        missing.retain(|sha256, size| {
            if fetched_here.contains(sha256) {
                let fetched = objects.join(sha256.to_string());
                if trusted(made_now, &fetched, *sha256, *size) {
                    return false;
                }
                // A power cut before the content was synced.
                let _overwritten_anyway = fs::remove_file(&fetched);
            }
            let (Some(path), Some(here)) = (old_files.get(sha256), &here) else { return true };
            // After a delta nearly all lie there; one that does not is found when it is linked.
            let linked = made_now && self.job.attempt == 0;
            let whole = linked || trusted(true, &path.under(here), *sha256, *size);
            if !whole {
                warn!(path = %path, "`{path}` of the running release is damaged; it is fetched anew");
            }
            !whole
        });
        Ok(missing)
    }

    fn require_space(&self, size_bytes: u64, files: usize) -> Result<(), Failure> {
        let needed = size_bytes + files as u64 * PER_FILE_BYTES + RESERVE_BYTES;
        require_space(self.dir, &self.job.to.release.to_string(), needed)
    }
}

/// Fails when `needed` bytes are not free.
///
/// # Errors
/// [`Reason::NoSpace`] with both numbers.
pub(crate) fn require_space(dir: &StateDir, release: &str, needed: u64) -> Result<(), Failure> {
    let free = slots::free_bytes(dir.root()).map_err(|error| slot_failure(&error))?;
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "no space for `{release}`: {needed} bytes are needed and {free} are free in `{}`\n\
         help: free {} bytes there, or give the state directory a larger disk",
        dir.root().display(),
        needed - free
    );
    Err(Failure::new(Reason::NoSpace, message))
}

fn slot_failure(error: &slots::SlotError) -> Failure {
    crate::failure::slot_failure(error)
}

fn cost(index: &ContentIndex, missing: &BTreeMap<Sha256, u64>) -> Result<u64, Failure> {
    index.cost_bytes(missing.keys()).map_err(|error| {
        Failure::new(
            Reason::Content,
            format!("the content index is of no use: {error}"),
        )
    })
}

/// Whether `path` is a file of this length.
fn has(path: &Path, size_bytes: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == size_bytes)
}

/// Whether the file `path` has this content.
fn is(path: &Path, sha256: Sha256, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() == size_bytes)
        && trees::hash_file(path).is_ok_and(|(_, found)| found == sha256)
}

/// Why the delta was not the way.
enum DeltaTrouble {
    /// Another way may work.
    Unusable(DeltaError),
    /// No way works now.
    Trouble(Trouble),
}

impl From<by_delta::Error> for DeltaTrouble {
    fn from(error: by_delta::Error) -> Self {
        match error {
            by_delta::Error::Unusable(error) => Self::Unusable(error),
            // Wrong twice on the server is refused, although the packs may be right: somebody
            // should look at that repository.
            by_delta::Error::Content(error) => Self::Trouble(content_trouble(error)),
            by_delta::Error::Disk(path, error) => {
                Self::Trouble(device_failure("write", &path, &error).into())
            }
        }
    }
}

impl From<Trouble> for DeltaTrouble {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Failure> for DeltaTrouble {
    fn from(failure: Failure) -> Self {
        Self::Trouble(Trouble::Failed(failure))
    }
}

/// Objects as files in a folder, named by their hash once they are whole.
pub(crate) struct ObjectFiles {
    folder: PathBuf,
    part: Option<(File, PathBuf, PathBuf)>,
}

impl ObjectFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, part: None }
    }
}

impl ObjectSink for ObjectFiles {
    fn begin(&mut self, sha256: Sha256, _size_bytes: u64) -> io::Result<()> {
        let path = self.folder.join(sha256.to_string());
        let part = path.with_extension("part");
        self.part = Some((File::create(&part)?, part, path));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.part {
            Some((file, ..)) => file.write_all(bytes),
            None => Err(io::Error::other("no object was begun")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a download: what a power cut tears is found by its hash and fetched again"
    )]
    fn finish(&mut self) -> io::Result<()> {
        if let Some((_, part, path)) = self.part.take() {
            fs::rename(part, path)?;
        }
        faults::point("agent:fetch:object");
        Ok(())
    }
}

mod offered;
#[cfg(test)]
mod tests;
