//! Deltas from earlier releases: their changed files are fetched back out of the packs.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pytheas_durable::trees::Folder;
use pytheas_release::{
    Entry, RelPath, Sha256, Tree,
    delta::{self, Files, ObjectSink},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{blocking, earlier::Earlier};
use crate::{
    client::{fetch_objects, fetch_tree},
    store::Store,
    transport::BlockingFetch,
};

/// Why there is no delta. Never a reason not to publish.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoDelta {
    #[error("the earlier release cannot be fetched back: {0}")]
    Fetch(#[from] crate::client::ContentError),
    #[error("temporary files cannot be written: {0}")]
    Scratch(#[from] io::Error),
    #[error("{0}")]
    Make(#[from] delta::MakeError),
}

/// The tree of `old` and the delta from it to the tree `new`, which lies in `dir`.
pub(super) async fn make(
    store: &Store,
    old: &Earlier,
    new: &Arc<Tree>,
    dir: &Path,
    scratch: &Arc<TempDir>,
) -> Result<(Tree, Vec<u8>), NoDelta> {
    let mut fetch = BlockingFetch {
        store: store.clone(),
        runtime: Handle::current(),
    };
    let (release, index) = (old.release.clone(), old.index.clone());
    let (new, dir, scratch) = (new.clone(), dir.to_owned(), scratch.clone());
    blocking(move || {
        let tree = fetch_tree(&mut fetch, &release)?;
        // Contents that both trees have are read from the new one, which is here.
        let here: BTreeMap<Sha256, RelPath> = new
            .files()
            .map(|(path, _, object)| (object, path.clone()))
            .collect();
        let mut gone = tree.objects();
        gone.retain(|object, _| !here.contains_key(object));
        let objects = scratch
            .path()
            .join(format!("old-{}", release.tree.id.short()));
        std::fs::create_dir_all(&objects)?;
        let mut sink = FolderSink::new(objects.clone());
        fetch_objects(&mut fetch, &index, &gone, &mut sink, &mut |_| {})?;
        let old_files = OldFiles {
            tree: &tree,
            here,
            dir: dir.clone(),
            objects: objects.clone(),
        };
        let delta = delta::make(&tree, &new, &old_files, &Folder(dir))?;
        std::fs::remove_dir_all(&objects)?;
        Ok((tree, delta))
    })
    .await
}

/// The files of an old tree: unchanged ones from the new tree, the others as they were fetched.
struct OldFiles<'t> {
    tree: &'t Tree,
    here: BTreeMap<Sha256, RelPath>,
    dir: PathBuf,
    objects: PathBuf,
}

impl Files for OldFiles<'_> {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(Entry::File { sha256, .. }) = self.tree.get(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match self.here.get(sha256) {
            Some(path) => read_at(&path.under(&self.dir), offset, len),
            None => read_at(&self.objects.join(sha256.to_string()), offset, len),
        }
    }
}

pub(crate) fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Stores objects as files named by their hash.
pub(crate) struct FolderSink {
    dir: PathBuf,
    open: Option<File>,
}

impl FolderSink {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, open: None }
    }
}

impl ObjectSink for FolderSink {
    fn begin(&mut self, sha256: Sha256, _size_bytes: u64) -> io::Result<()> {
        self.open = Some(File::create(self.dir.join(sha256.to_string()))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::other("no object was begun")),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open = None;
        Ok(())
    }
}
