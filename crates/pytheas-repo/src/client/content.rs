//! What signed metadata vouches for: targets, release documents, trees, indexes and whole blobs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Client, metadata::MetadataError, pin::Pin};
use crate::{
    fetch::{DownloadError, Fetch, fetch_exactly, fetch_range, fetch_some},
    index::{ContentIndex, IndexError},
    layout,
    unpack::{UnpackError, unpack},
};
use miette::Diagnostic;
use pytheas_release::{
    BlobRef, DocumentError, Hasher, Platform, Release, Sha256, Tree, TreeError, TreeId,
};

/// Longest tree document and content index we read, in bytes as they are stored.
const DOCUMENT_MAX: u64 = 64 << 20;
/// Longest tree document, in bytes when unpacked.
const TREE_MAX: u64 = 256 << 20;

/// Content that is not what the metadata vouches for, or that does not fit this device.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ContentError {
    /// It was not obtained.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Download(#[from] DownloadError),
    /// A delegated role that may name it is not in order.
    #[error("cannot tell whether a delegated role names `{target}`")]
    #[diagnostic(
        code(pytheas::content::refused::delegated),
        help("the team whose role it is must sign and publish again")
    )]
    Delegated {
        /// The target asked for.
        target: String,
        /// What is wrong with the role.
        source: Box<MetadataError>,
    },
    /// No such target.
    #[error("the repository has no release `{target}`")]
    #[diagnostic(code(pytheas::content::no_target), help("{have}"))]
    NoTarget {
        /// The target asked for.
        target: String,
        /// What there is instead.
        have: String,
    },
    /// For another kind of device.
    #[error("`{target}` is for platform `{found}`, this device is `{wanted}`")]
    #[diagnostic(
        code(pytheas::content::refused::wrong_platform),
        help(
            "build and publish the release for `{wanted}` too, or leave this device out of the rollout"
        )
    )]
    WrongPlatform {
        /// The target.
        target: String,
        /// The platform it is for.
        found: String,
        /// The device's platform.
        wanted: Platform,
    },
    /// The signed document is not a release document.
    #[error("`{file}` cannot be used")]
    #[diagnostic(
        code(pytheas::content::document),
        help("it was published by another version of pytheas; update the agent")
    )]
    Document {
        /// The file.
        file: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// The tree document does not unpack.
    #[error("the tree document `{file}` cannot be used")]
    #[diagnostic(
        code(pytheas::content::refused::unpack),
        help("it was published by a faulty program; publish the release again")
    )]
    Unpack {
        /// The file.
        file: String,
        /// What is wrong.
        source: UnpackError,
    },
    /// The tree document is no tree.
    #[error("the tree document `{file}` cannot be used")]
    #[diagnostic(
        code(pytheas::content::refused::tree),
        help("it was published by a faulty program; publish the release again")
    )]
    Tree {
        /// The file.
        file: String,
        /// What is wrong.
        source: TreeError,
    },
    /// The tree document is another tree.
    #[error("the tree document `{file}` is tree {found}, the release promises tree {expected}")]
    #[diagnostic(
        code(pytheas::content::refused::other_tree),
        help("it was published by a faulty program; publish the release again")
    )]
    OtherTree {
        /// The file.
        file: String,
        /// What the release says.
        expected: TreeId,
        /// What it is.
        found: TreeId,
    },
    /// The content index cannot be used.
    #[error("the content index `{file}` cannot be used")]
    #[diagnostic(
        code(pytheas::content::refused::index),
        help("it was published by a faulty program; publish the release again")
    )]
    Index {
        /// The file.
        file: String,
        /// What is wrong.
        source: IndexError,
    },
    /// A blob was wrong twice.
    #[error("`{path}` is not what was signed, also when fetched again from the start")]
    #[diagnostic(
        code(pytheas::content::refused::blob_mismatch),
        help(
            "the copy on the server is damaged or was changed; nothing of it was used. Restore this file from a copy of the repository, and find out who changed it"
        )
    )]
    BlobMismatch {
        /// The file of the repository.
        path: String,
        /// What was wrong the second time.
        source: DownloadError,
    },
    /// An object in a pack was wrong twice.
    #[error("object {object} in `{path}` is not what was signed, also when fetched again: {why}")]
    #[diagnostic(
        code(pytheas::content::refused::object_mismatch),
        help(
            "the copy on the server is damaged or was changed; nothing of it was used. Restore this file from a copy of the repository, and find out who changed it"
        )
    )]
    ObjectMismatch {
        /// The pack.
        path: String,
        /// The object.
        object: Sha256,
        /// What was wrong the second time.
        why: String,
    },
    /// The sink cannot take the content.
    #[error("cannot store object {object}")]
    #[diagnostic(
        code(pytheas::content::io::sink),
        help("is the disk full, or the folder not writable for this user?")
    )]
    Sink {
        /// The object.
        object: Sha256,
        /// What the sink says.
        source: io::Error,
    },
}

/// A target that signed metadata names.
struct Located {
    file: String,
    pin: Pin,
}

/// The bytes of the target `name`, verified against signed targets metadata (TUF §5.7).
impl Client<'_> {
    /// The content of the target `name`, at most [`super::Limits::target`] bytes.
    ///
    /// # Errors
    /// [`ContentError::NoTarget`] when nobody names it who may; [`ContentError::Delegated`] when a
    /// role that may name it is not in order; [`DownloadError`] when what comes is not what was
    /// signed.
    pub fn target(&mut self, name: &str) -> Result<Vec<u8>, ContentError> {
        let located = self.locate(name)?;
        Ok(self.fetch_located(&located)?)
    }

    /// Whether `content` is the target `name`, which then need not be fetched.
    ///
    /// # Errors
    /// As [`Self::target`]; nothing of the target itself is fetched.
    pub fn is_target(&mut self, name: &str, content: &[u8]) -> Result<bool, ContentError> {
        let located = self.locate(name)?;
        Ok(located.pin.check(&located.file, content).is_ok())
    }

    /// Where the target `name` lies, and what it must be.
    fn locate(&mut self, name: &str) -> Result<Located, ContentError> {
        // 5.7.1, 5.7.2 It must be named by a role that may.
        let target = self.search(name).map_err(|source| match source {
            MetadataError::Download(download) => ContentError::Download(download),
            other => ContentError::Delegated {
                target: name.to_owned(),
                source: Box::new(other),
            },
        })?;
        let Some(target) = target else {
            return Err(self.no_target(name));
        };
        // 5.7.3 Its length and hash are known before it is asked for.
        let pin = Pin::of_target(name, &target)?;
        let consistent = self.trusted.root.signed.consistent_snapshot();
        let file = match pin.in_names().filter(|_| consistent) {
            Some(hash) => layout::hashed_target(name, hash),
            None => format!("targets/{name}"),
        };
        if target.length > self.limits.target {
            let limit_bytes = self.limits.target;
            return Err(DownloadError::TooLarge { file, limit_bytes }.into());
        }
        Ok(Located { file, pin })
    }

    /// The file, asked for twice when it is wrong.
    fn fetch_located(&mut self, located: &Located) -> Result<Vec<u8>, DownloadError> {
        let Located { file, pin } = located;
        let limit = pin.length.unwrap_or(self.limits.target);
        let mut attempt = || {
            let bytes = fetch_some(self.fetch, file, limit)?;
            pin.check(file, &bytes).map(|()| bytes)
        };
        match attempt() {
            Err(error) if error.is_wrong_content() => attempt(), // a proxy's hiccup, or a lie
            other => other,
        }
    }

    fn no_target(&self, name: &str) -> ContentError {
        let app = name.split('/').next().unwrap_or(name);
        let mut have: Vec<String> = self
            .target_names()
            .into_iter()
            .filter(|n| n.split('/').next() == Some(app))
            .collect();
        let more = have.len().saturating_sub(8);
        have.truncate(8);
        let have = match (have.is_empty(), more) {
            (true, _) => format!("it has no release of `{app}` at all"),
            (false, 0) => format!("it has {}", have.join(", ")),
            (false, more) => format!("it has {} and {more} more", have.join(", ")),
        };
        ContentError::NoTarget {
            target: name.to_owned(),
            have,
        }
    }

    /// The release document that is the target `name` (`NAME/VERSION/PLATFORM/release.json`), if
    /// it is for `platform`.
    ///
    /// # Errors
    /// [`ContentError::WrongPlatform`] when it is for another one; else as [`Self::target`].
    pub fn fetch_release(
        &mut self,
        name: &str,
        platform: &Platform,
    ) -> Result<Release, ContentError> {
        let wrong = |found: &str| ContentError::WrongPlatform {
            target: name.to_owned(),
            found: found.to_owned(),
            wanted: platform.clone(),
        };
        let located = self.locate(name)?;
        match name.split('/').nth(2) {
            Some(found) if found != platform.as_str() => return Err(wrong(found)),
            _ => {}
        }
        let bytes = self.fetch_located(&located)?;
        let file = located.file;
        let release = Release::parse(name, &bytes)
            .map_err(|source| ContentError::Document { file, source })?;
        if release.platform != *platform {
            return Err(wrong(release.platform.as_str()));
        }
        Ok(release)
    }

    /// The tree of `release`. (A device that applies a delta does not need it: the delta makes
    /// it.)
    ///
    /// # Errors
    /// [`ContentError`] when it is not the signed one.
    pub fn tree(&mut self, release: &Release) -> Result<Tree, ContentError> {
        fetch_tree(self.fetch, release)
    }

    /// Where the objects of `release` lie.
    ///
    /// # Errors
    /// [`ContentError`] when it is not the signed one or cannot be used.
    pub fn index(&mut self, release: &Release) -> Result<ContentIndex, ContentError> {
        fetch_index(self.fetch, release)
    }

    /// Downloads `blob` into the downloads folder and returns where it is, complete and verified.
    ///
    /// What an earlier, broken download left is taken up again; what is complete already is only
    /// verified. Content that turns out wrong is fetched once more from the start. `progress` is
    /// told how many bytes there are. The file stays until [`Self::forget_blob`].
    ///
    /// # Errors
    /// [`ContentError::BlobMismatch`] when it was wrong twice; [`ContentError::Download`] when the
    /// network or the disk fails.
    pub fn blob(
        &mut self,
        blob: &BlobRef,
        progress: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, ContentError> {
        let local = self.blob_path(blob);
        pytheas_durable::create_dir_all(&self.downloads_dir)
            .map_err(DownloadError::write(&self.downloads_dir))?;
        match download(self.fetch, blob, &local, progress) {
            Ok(()) => Ok(local),
            Err(error) if error.is_wrong_content() => {
                let path = layout::blob(&blob.sha256);
                tracing::warn!(file = %path, "`{path}` is not what was signed; fetching it again from the start");
                match download(self.fetch, blob, &local, progress) {
                    Ok(()) => Ok(local),
                    Err(source) if source.is_wrong_content() => {
                        Err(ContentError::BlobMismatch { path, source })
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes of `blob` from `from` on, as they come: unverified.
    ///
    /// # Errors
    /// [`ContentError::Download`] when the network fails.
    pub fn blob_from(&mut self, blob: &BlobRef, from: u64) -> Result<Box<dyn Read>, ContentError> {
        let path = layout::blob(&blob.sha256);
        let reader = fetch_range(self.fetch, &path, from..blob.size_bytes)?;
        Ok(Box::new(reader))
    }

    /// What it means that `blob` was wrong, also when fetched again.
    pub fn wrong_blob(
        blob: &BlobRef,
        why: impl std::error::Error + Send + Sync + 'static,
    ) -> ContentError {
        let path = layout::blob(&blob.sha256);
        let source = DownloadError::Broken {
            file: path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        };
        ContentError::BlobMismatch { path, source }
    }

    /// What it means that reading `blob` failed.
    pub fn broken_blob(blob: &BlobRef, source: io::Error) -> ContentError {
        let file = layout::blob(&blob.sha256);
        DownloadError::Broken { file, source }.into()
    }

    /// Removes what was downloaded of `blob`.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn forget_blob(&self, blob: &BlobRef) -> io::Result<()> {
        pytheas_durable::remove_tree(&self.blob_path(blob))
    }

    fn blob_path(&self, blob: &BlobRef) -> PathBuf {
        self.downloads_dir.join(blob.sha256.to_string())
    }
}

/// The document `blob`, which is small enough for memory.
fn fetch_document(fetch: &mut dyn Fetch, blob: &BlobRef) -> Result<Vec<u8>, ContentError> {
    let path = layout::blob(&blob.sha256);
    if blob.size_bytes > DOCUMENT_MAX {
        return Err(DownloadError::TooLarge {
            file: path,
            limit_bytes: DOCUMENT_MAX,
        }
        .into());
    }
    match fetch_exactly(fetch, &path, blob) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.is_wrong_content() => {
            Err(ContentError::BlobMismatch { path, source })
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn fetch_tree(fetch: &mut dyn Fetch, release: &Release) -> Result<Tree, ContentError> {
    let blob = &release.tree.document;
    let packed = fetch_document(fetch, blob)?;
    let file = layout::blob(&blob.sha256);
    let bytes = unpack(&packed, TREE_MAX).map_err(|source| ContentError::Unpack {
        file: file.clone(),
        source,
    })?;
    let found = TreeId(Sha256::of(&bytes));
    if found != release.tree.id {
        return Err(ContentError::OtherTree {
            file,
            expected: release.tree.id,
            found,
        });
    }
    Tree::parse(&bytes).map_err(|source| ContentError::Tree { file, source })
}

pub(crate) fn fetch_index(
    fetch: &mut dyn Fetch,
    release: &Release,
) -> Result<ContentIndex, ContentError> {
    let packed = fetch_document(fetch, &release.index)?;
    ContentIndex::parse(&packed).map_err(|source| ContentError::Index {
        file: layout::blob(&release.index.sha256),
        source,
    })
}

/// Makes the file `local` be `blob`: takes up what is there, verifies the whole. On wrong content
/// the file is emptied, so that the next attempt begins at the start.
fn download(
    fetch: &mut dyn Fetch,
    blob: &BlobRef,
    local: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let path = layout::blob(&blob.sha256);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(local)
        .map_err(DownloadError::write(local))?;
    let result = fill(fetch, blob, &path, &mut file, local, progress);
    if result.as_ref().is_err_and(DownloadError::is_wrong_content) {
        file.set_len(0).map_err(DownloadError::write(local))?;
    }
    result
}

fn fill(
    fetch: &mut dyn Fetch,
    blob: &BlobRef,
    path: &str,
    file: &mut File,
    local: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let write = |source| DownloadError::Write {
        path: local.to_owned(),
        source,
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut have = file.metadata().map_err(write)?.len();
    if have > blob.size_bytes {
        file.set_len(0).map_err(write)?;
        have = 0;
    }
    file.rewind().map_err(write)?;
    loop {
        match file.read(&mut buffer).map_err(write)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    progress(have);
    if have < blob.size_bytes {
        file.seek(SeekFrom::Start(have)).map_err(write)?;
        let mut reader = fetch_range(fetch, path, have..blob.size_bytes)?;
        loop {
            let n = reader
                .read(&mut buffer)
                .map_err(|source| DownloadError::Broken {
                    file: path.to_owned(),
                    source,
                })?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(write)?;
            have += n as u64;
            progress(have);
        }
    }
    if have < blob.size_bytes {
        return Err(DownloadError::Truncated {
            file: path.to_owned(),
            expected_bytes: blob.size_bytes,
            found_bytes: have,
        });
    }
    let found = hasher.finish();
    if found != blob.sha256 {
        return Err(DownloadError::Mismatch {
            file: path.to_owned(),
            algorithm: "SHA-256",
            expected: blob.sha256.to_string(),
            found: found.to_string(),
        });
    }
    Ok(())
}
