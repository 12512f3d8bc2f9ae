//! Makes the file for a USB stick out of a repository: `pytheas export`.
//!
//! What goes in: the whole chain of root metadata, timestamp, snapshot and everything the snapshot
//! lists, and of each chosen release its document, tree, content index, packs, deltas and, for
//! boards, the signed image; so a
//! device with a known older release needs only the delta, and any other one finds all content.
//! Bills of materials and provenance stay behind: devices do not read them.
//!
//! Before the file gets its name, a device's client reads it: a file that a device would refuse is
//! never handed out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_release::{
    BlobRef, Hasher, Name, Platform, Release, ReleaseRef, Sha256, TreeId, Version,
};
use tokio::runtime::Handle;
use tough::schema::{Signed, Snapshot};

use crate::{
    client::{self, Client, ContentError, MetadataError, fetch_index},
    layout,
    offline::{
        self, CONTENTS, Contents, HeaderError, MEMBERS_MAX, OfflineError, OfflineFile, SUMS,
    },
    repository::{Listed, Repository, RepositoryError},
    store::{Store, StoreError},
    transport::BlockingFetch,
};

/// Longest metadata file, in bytes.
const METADATA_MAX: u64 = 16 << 20;

/// What is to be exported.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These releases; `None` as version: the one published last. Empty: of every app.
    pub releases: Vec<(Name, Option<Version>)>,
    /// Only for these platforms; empty: for all that the release has.
    pub platforms: Vec<Platform>,
    /// Deltas from these versions only; `None`: all that the repository has.
    pub from: Option<Vec<Version>>,
}

/// What an offline file holds.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// When a device refuses it as too old.
    pub expires: Timestamp,
    /// The releases.
    pub releases: Vec<ExportedRelease>,
}

/// One release in it.
#[derive(Debug, Clone)]
pub struct ExportedRelease {
    /// Its name and version.
    pub reference: ReleaseRef,
    /// Its platform.
    pub platform: Platform,
    /// The TUF target.
    pub target: String,
    /// Length of its content, compressed.
    pub content_bytes: u64,
    /// Deltas in the file, with their lengths: from a version, or from a tree that the repository
    /// names no release for.
    pub deltas: Vec<(String, u64)>,
    /// Versions asked for that have no delta: such devices take the content.
    pub without_delta: Vec<Version>,
}

/// An export that was not made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ExportError {
    /// The repository does not verify.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] RepositoryError),
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// Content is not what was signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Content(#[from] ContentError),
    /// A device would refuse the metadata.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Metadata(#[from] MetadataError),
    /// The file that was made cannot be read again.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Offline(#[from] OfflineError),
    /// Something does not fit into the format.
    #[error(transparent)]
    #[diagnostic(help(
        "give the release a shorter name or version, or serve the repository folder itself"
    ))]
    Header(#[from] HeaderError),
    /// Nothing fits.
    #[error("`{store}` has no release {wanted}")]
    #[diagnostic(code(pytheas::export::no_release), help("it has {have}"))]
    NoRelease {
        /// The store.
        store: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
    /// A version to make a delta from that nobody knows.
    #[error("`{store}` has no release `{name}@{version}` to update from")]
    #[diagnostic(code(pytheas::export::no_from), help("it has {have}"))]
    NoFrom {
        /// The store.
        store: String,
        /// The app.
        name: Name,
        /// The version.
        version: Version,
        /// What there is.
        have: String,
    },
    /// The repository lacks a file that is signed for.
    #[error("`{store}` has no `{path}`")]
    #[diagnostic(
        code(pytheas::export::missing),
        help("was the last `pytheas publish` completed, and was nothing removed?")
    )]
    Missing {
        /// The store.
        store: String,
        /// The file.
        path: String,
    },
    /// A file is not what is signed.
    #[error("`{path}` in `{store}` is not what was signed")]
    #[diagnostic(
        code(pytheas::export::refused::mismatch),
        help("restore this file from a copy of the repository, and find out what changed it")
    )]
    Mismatch {
        /// The store.
        store: String,
        /// The file.
        path: String,
    },
    /// Too much at once.
    #[error("{0} files are more than an offline file can hold")]
    #[diagnostic(help("export fewer releases or platforms at once"))]
    TooMany(usize),
    /// The file cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(pytheas::export::io),
        help(
            "is the disk full, or the folder not yours? FAT32 sticks hold no file above 4 GiB: format it as exFAT or ext4"
        )
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What a file in the export consists of.
enum Source {
    Bytes(Vec<u8>),
    Blob(BlobRef),
}

impl Source {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.size_bytes,
        }
    }
}

/// Writes what `selection` names of the repository in `store` to the file `out`, replacing it whole
/// or not at all. `root` is the root metadata to trust, by default the repository's first: whoever
/// applies the file trusts a root of their own anyway. `progress` is told bytes done and to do.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    store: &Store,
    root: Option<&[u8]>,
    selection: &Selection,
    out: &Path,
    now: Timestamp,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Exported, ExportError> {
    let first_root = needed(store, &layout::root(1), METADATA_MAX).await?;
    let root = root.map_or_else(|| first_root.to_vec(), <[u8]>::to_vec);
    let repository = Repository::open(store, &root, now).await?;
    let chosen = choose(store, &repository.releases(), selection)?;
    let mut files = metadata(store, &repository).await?;
    let mut releases = Vec::new();
    for listed in &chosen {
        let bytes = repository.document(&listed.target).await?;
        let release =
            Release::parse(&listed.target, &bytes).map_err(|source| RepositoryError::Document {
                store: store.to_string(),
                source,
            })?;
        let path = layout::target(&listed.target, &listed.document.sha256);
        files.insert(path, Source::Bytes(bytes));
        let mut blobs = vec![release.tree.document, release.index];
        if let Some(board) = release.board {
            blobs.push(board.image);
            blobs.extend(board.lines);
        }
        let (packs, release) = packs(store, release).await?;
        let (deltas, shown) = deltas(store, &repository.releases(), &release, selection)?;
        for blob in blobs.iter().chain(&packs).chain(&deltas) {
            files.insert(layout::blob(&blob.sha256), Source::Blob(*blob));
        }
        releases.push(ExportedRelease {
            content_bytes: packs.iter().map(|pack| pack.size_bytes).sum(),
            reference: listed.reference.clone(),
            platform: listed.platform.clone(),
            target: listed.target.clone(),
            ..shown
        });
    }
    if files.len() + 2 > MEMBERS_MAX {
        return Err(ExportError::TooMany(files.len()));
    }
    let mut targets: Vec<String> = chosen.iter().map(|listed| listed.target.clone()).collect();
    targets.sort();
    let (store, out, runtime) = (store.clone(), out.to_owned(), Handle::current());
    let written = tokio::task::spawn_blocking(move || {
        let write = |source| ExportError::Write {
            path: out.clone(),
            source,
        };
        let mut failure = None;
        let mut expires = now;
        let replaced = pytheas_durable::replace_with(&out, 0o644, |file| {
            let made = write_all(file, &store, &runtime, &files, &targets, progress)
                .and_then(|()| prove(file, &out, &root, &targets, now));
            match made {
                Ok(earliest) => {
                    expires = earliest;
                    Ok(())
                }
                Err(error) => {
                    failure = Some(error);
                    Err(io::Error::other("the export was not made"))
                }
            }
        });
        match (failure, replaced) {
            (Some(Failed::Export(error)), _) => Err(*error),
            (Some(Failed::Disk(source)), _) | (None, Err(source)) => Err(write(source)),
            (None, Ok(())) => {
                let size_bytes = std::fs::metadata(&out).map_err(write)?.len();
                Ok((out.clone(), size_bytes, expires))
            }
        }
    });
    let (path, size_bytes, expires) = match written.await {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    Ok(Exported {
        path,
        size_bytes,
        expires,
        releases,
    })
}

/// Why writing ended.
enum Failed {
    Export(Box<ExportError>),
    Disk(io::Error),
}

impl<E: Into<ExportError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Export(Box::new(error.into()))
    }
}

fn disk(error: io::Error) -> Failed {
    Failed::Disk(error)
}

async fn needed(store: &Store, path: &str, limit: u64) -> Result<Bytes, ExportError> {
    store
        .get(path, limit)
        .await?
        .ok_or_else(|| match path == layout::root(1) {
            true => RepositoryError::Empty {
                store: store.to_string(),
            }
            .into(),
            false => missing(store, path),
        })
}

fn missing(store: &Store, path: &str) -> ExportError {
    ExportError::Missing {
        store: store.to_string(),
        path: path.to_owned(),
    }
}

/// The metadata, by path: all roots, the timestamp, the snapshot and what it lists.
async fn metadata(
    store: &Store,
    repository: &Repository,
) -> Result<BTreeMap<String, Source>, ExportError> {
    let [root, _, snapshot, _] = repository.versions();
    let mut paths: Vec<String> = (1..=root).map(layout::root).collect();
    let snapshot = layout::snapshot(snapshot);
    let listed: Signed<Snapshot> = serde_json::from_slice(
        &needed(store, &snapshot, METADATA_MAX).await?,
    )
    .map_err(|source| MetadataError::Parse {
        file: snapshot.clone(),
        source,
    })?;
    for (name, meta) in &listed.signed.meta {
        paths.push(format!("metadata/{}.{name}", meta.version));
    }
    paths.extend([snapshot, layout::TIMESTAMP.to_owned()]);
    let mut files = BTreeMap::new();
    for path in paths {
        let bytes = needed(store, &path, METADATA_MAX).await?.to_vec();
        files.insert(path, Source::Bytes(bytes));
    }
    Ok(files)
}

/// The releases that are meant, in the order in which the repository lists them.
fn choose(
    store: &Store,
    all: &[Listed],
    selection: &Selection,
) -> Result<Vec<Listed>, ExportError> {
    let fits = |listed: &&Listed| {
        selection.platforms.is_empty() || selection.platforms.contains(&listed.platform)
    };
    let none = |wanted: String| {
        let platforms: Vec<&str> = selection.platforms.iter().map(Platform::as_str).collect();
        let wanted = match (wanted.is_empty(), platforms.is_empty()) {
            (true, true) => "at all".to_owned(),
            (true, false) => format!("for {}", platforms.join(", ")),
            (false, true) => format!("`{wanted}`"),
            (false, false) => format!("`{wanted}` for {}", platforms.join(", ")),
        };
        ExportError::NoRelease {
            store: store.to_string(),
            wanted,
            have: have(all),
        }
    };
    let mut wanted = selection.releases.clone();
    if wanted.is_empty() {
        wanted = all
            .iter()
            .map(|l| (l.reference.name.clone(), None))
            .collect();
        wanted.dedup();
        if !all.iter().any(|listed| fits(&listed)) {
            return Err(none(String::new()));
        }
    }
    let mut chosen: Vec<Listed> = Vec::new();
    for (name, version) in wanted {
        // Listed by platform and time: the last of a platform is the newest there.
        let mut found: BTreeMap<Platform, Listed> = BTreeMap::new();
        for listed in all.iter().filter(fits) {
            let reference = &listed.reference;
            if reference.name == name && version.as_ref().is_none_or(|v| *v == reference.version) {
                found.insert(listed.platform.clone(), listed.clone());
            }
        }
        if found.is_empty() && !selection.releases.is_empty() {
            return Err(none(match version {
                Some(version) => format!("{name}@{version}"),
                None => name.to_string(),
            }));
        }
        chosen.extend(found.into_values());
    }
    chosen.sort_by(|a, b| a.target.cmp(&b.target));
    chosen.dedup_by(|a, b| a.target == b.target);
    Ok(chosen)
}

fn have(all: &[Listed]) -> String {
    if all.is_empty() {
        return "no releases".into();
    }
    let names: Vec<String> = all
        .iter()
        .map(|listed| format!("{} for {}", listed.reference, listed.platform))
        .collect();
    names.join(", ")
}

/// The packs of a release, by its content index.
async fn packs(store: &Store, release: Release) -> Result<(Vec<BlobRef>, Release), ExportError> {
    let (store, runtime) = (store.clone(), Handle::current());
    let read = tokio::task::spawn_blocking(move || {
        let mut fetch = BlockingFetch { store, runtime };
        fetch_index(&mut fetch, &release).map(|index| (index.packs, release))
    });
    match read.await {
        Ok(result) => Ok(result?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The deltas to `release` that are wanted, and what is to be said about them.
fn deltas(
    store: &Store,
    all: &[Listed],
    release: &Release,
    selection: &Selection,
) -> Result<(Vec<BlobRef>, ExportedRelease), ExportError> {
    let mut shown = ExportedRelease {
        reference: release.reference(),
        platform: release.platform.clone(),
        target: String::new(),
        content_bytes: 0,
        deltas: Vec::new(),
        without_delta: Vec::new(),
    };
    let same_app = |listed: &&Listed| {
        listed.reference.name == release.name && listed.platform == release.platform
    };
    let tree_of = |version: &Version| {
        let known = all.iter().filter(same_app);
        known
            .filter(|l| l.reference.version == *version)
            .find_map(|l| l.tree)
    };
    let mut wanted: Vec<TreeId> = Vec::new();
    match &selection.from {
        None => wanted.extend(release.deltas.keys()),
        Some(versions) => {
            for version in versions {
                let known = all
                    .iter()
                    .any(|l| l.reference.name == release.name && l.reference.version == *version);
                if !known {
                    return Err(ExportError::NoFrom {
                        store: store.to_string(),
                        name: release.name.clone(),
                        version: version.clone(),
                        have: have(all),
                    });
                }
                match tree_of(version).filter(|tree| release.deltas.contains_key(tree)) {
                    Some(tree) => wanted.push(tree),
                    None if *version == release.version => {}
                    None => shown.without_delta.push(version.clone()),
                }
            }
        }
    }
    let mut blobs = Vec::new();
    for tree in wanted {
        let Some(blob) = release.deltas.get(&tree) else {
            continue;
        };
        let known = all.iter().filter(same_app).find(|l| l.tree == Some(tree));
        let from = known.map_or_else(|| tree.short(), |l| l.reference.version.to_string());
        shown.deltas.push((from, blob.size_bytes));
        blobs.push(*blob);
    }
    Ok((blobs, shown))
}

/// Writes the archive.
fn write_all(
    file: &mut File,
    store: &Store,
    runtime: &Handle,
    files: &BTreeMap<String, Source>,
    targets: &[String],
    mut progress: impl FnMut(u64, u64),
) -> Result<(), Failed> {
    let total: u64 = files.values().map(Source::size_bytes).sum();
    let contents = Contents {
        format: 1,
        releases: targets.to_vec(),
    };
    let mut contents = serde_json::to_vec_pretty(&contents).expect("a number and names");
    contents.push(b'\n');
    let contents = Source::Bytes(contents);
    let mut sums = String::new();
    let mut done = 0;
    let all = std::iter::once((CONTENTS, &contents))
        .chain(files.iter().map(|(path, source)| (path.as_str(), source)));
    for (path, source) in all {
        file.write_all(&offline::header(path, source.size_bytes())?)
            .map_err(disk)?;
        let sha256 = match source {
            Source::Bytes(bytes) => {
                file.write_all(bytes).map_err(disk)?;
                done += bytes.len() as u64;
                progress(done, total);
                Sha256::of(bytes)
            }
            Source::Blob(blob) => {
                let copied = copy(file, store, runtime, path, blob, &mut |n| {
                    progress(done + n, total);
                })?;
                done += blob.size_bytes;
                copied
            }
        };
        pad(file, source.size_bytes())?;
        sums.push_str(&offline::sum_line(&sha256, path));
    }
    file.write_all(&offline::header(SUMS, sums.len() as u64)?)
        .and_then(|()| file.write_all(sums.as_bytes()))
        .map_err(disk)?;
    pad(file, sums.len() as u64)?;
    file.write_all(&[0; offline::END_BYTES as usize])
        .map_err(disk)
}

fn pad(file: &mut File, size_bytes: u64) -> Result<(), Failed> {
    let zeros = [0; 512];
    let len = usize::try_from(offline::padding(size_bytes)).unwrap_or(0);
    file.write_all(&zeros[..len]).map_err(disk)
}

/// Copies a blob as it comes; its hash, which is the one in its name.
fn copy(
    file: &mut File,
    store: &Store,
    runtime: &Handle,
    path: &str,
    blob: &BlobRef,
    progress: &mut dyn FnMut(u64),
) -> Result<Sha256, Failed> {
    let mut hasher = Hasher::new();
    let mut at = 0;
    let mut chunks = runtime
        .block_on(store.chunks(path))?
        .ok_or_else(|| missing(store, path))?;
    while let Some(bytes) = runtime.block_on(chunks.next()) {
        let bytes = bytes?;
        at += bytes.len() as u64;
        if at > blob.size_bytes {
            break;
        }
        hasher.update(&bytes);
        file.write_all(&bytes).map_err(disk)?;
        progress(at);
    }
    let found = hasher.finish();
    if at != blob.size_bytes || found != blob.sha256 {
        return Err(ExportError::Mismatch {
            store: store.to_string(),
            path: path.to_owned(),
        }
        .into());
    }
    Ok(found)
}

/// Reads the file as a device would; when its metadata expires.
fn prove(
    file: &File,
    out: &Path,
    root: &[u8],
    targets: &[String],
    now: Timestamp,
) -> Result<Timestamp, Failed> {
    let file = file.try_clone().map_err(disk)?;
    let mut made = OfflineFile::of(out, file)?;
    let state = tempfile::tempdir().map_err(disk)?;
    client::init(state.path(), root, None)?;
    let mut client = Client::open(state.path(), &mut made)?;
    client.refresh(now)?;
    for target in targets {
        let platform = target.split('/').nth(2).and_then(|p| p.parse().ok());
        if let Some(platform) = platform {
            let release = client.fetch_release(target, &platform)?;
            client.tree(&release)?;
            client.index(&release)?;
        }
    }
    Ok(client.expires().unwrap_or(now))
}
