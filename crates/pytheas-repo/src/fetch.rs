//! How the device's client gets files: a small trait the agent fills in, and bounded, verified
//! reading on top of it.
//!
//! Whoever answers is not trusted: no answer is longer in memory than what was asked for, and
//! nothing goes on before its hash is right.

use std::{
    error::Error,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::{BlobRef, Sha256};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The file, relative to the repository: `metadata/timestamp.json`.
    pub path: &'a str,
    /// Only these bytes of it, if the other side can do that (RFC 9110 §14).
    pub range: Option<Range<u64>>,
    /// More than this will not be read; an answer that announces more may be refused at once.
    pub max_bytes: u64,
}

/// An answer.
pub struct Body {
    /// Where in the file the bytes begin: the start of the range asked for, or 0 when the other
    /// side sends the whole file (status 200).
    pub start: u64,
    /// The bytes.
    pub reader: Box<dyn Read>,
}

/// What a transport says when it fails.
pub type TransportError = Box<dyn Error + Send + Sync>;

/// Gets files of a repository. With HTTP: a GET, `Range: bytes=START-END` when a range is given;
/// 200 and 206 are answers, 404 and 410 are `None`, 416 is an empty body at the start asked for (the
/// file is shorter than it should be, which is judged here), all else is an error.
pub trait Fetch {
    /// The file, or `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be said whether there is one.
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError>;
}

/// Reads a repository in a folder: a USB stick, a test.
#[derive(Debug, Clone)]
pub struct FolderFetch(pub PathBuf);

impl Fetch for FolderFetch {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        let mut file = match File::open(self.0.join(request.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Some(range) = &request.range else {
            return Ok(Some(Body {
                start: 0,
                reader: Box::new(file),
            }));
        };
        file.seek(SeekFrom::Start(range.start))?;
        let reader = Box::new(file.take(range.end - range.start));
        Ok(Some(Body {
            start: range.start,
            reader,
        }))
    }
}

/// A file of the repository that was not obtained as it should be.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DownloadError {
    /// The transport failed.
    #[error("cannot get `{file}` from the repository")]
    #[diagnostic(
        code(pytheas::download::network::transport),
        help(
            "check the network and that the repository's server is reachable; the download goes on where it stopped"
        )
    )]
    Transport {
        /// The file.
        file: String,
        /// What the transport says.
        source: TransportError,
    },
    /// The connection broke.
    #[error("the download of `{file}` broke off")]
    #[diagnostic(
        code(pytheas::download::network::broken),
        help("the network failed on the way; the download goes on where it stopped")
    )]
    Broken {
        /// The file.
        file: String,
        /// What the reader says.
        source: io::Error,
    },
    /// There is no such file.
    #[error("the repository has no file `{file}`")]
    #[diagnostic(
        code(pytheas::download::not_found),
        help("is the address right, and was the last `pytheas publish` completed?")
    )]
    NotFound {
        /// The file.
        file: String,
    },
    /// More bytes than there may be.
    #[error("`{file}` is larger than the {limit_bytes} bytes allowed")]
    #[diagnostic(
        code(pytheas::download::refused::too_large),
        help("the server sends something else than what was published; nothing of it was kept")
    )]
    TooLarge {
        /// The file.
        file: String,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// Fewer bytes than there must be.
    #[error("`{file}` is cut short: {found_bytes} of {expected_bytes} bytes")]
    #[diagnostic(
        code(pytheas::download::refused::truncated),
        help(
            "the copy on the server is incomplete, or a proxy cut it; restore this file from a copy of the repository"
        )
    )]
    Truncated {
        /// The file.
        file: String,
        /// What the metadata says.
        expected_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
    /// Other bytes than were signed.
    #[error("`{file}` is not what was signed: its {algorithm} is {found}, {expected} was signed")]
    #[diagnostic(
        code(pytheas::download::refused::mismatch),
        help(
            "the copy on the server is damaged or was changed; nothing of it was kept. Restore this file from a copy of the repository, and find out who changed it"
        )
    )]
    Mismatch {
        /// The file.
        file: String,
        /// `SHA-256` or another hash.
        algorithm: &'static str,
        /// What was signed, hexadecimal.
        expected: String,
        /// What came, hexadecimal.
        found: String,
    },
    /// Nothing to compare with.
    #[error("`{file}` is signed with hashes we cannot check ({algorithms})")]
    #[diagnostic(
        code(pytheas::download::refused::no_known_hash),
        help("publish it with SHA-256 too; a newer agent may know more hashes")
    )]
    NoKnownHash {
        /// The file.
        file: String,
        /// What there is.
        algorithms: String,
    },
    /// The downloads folder cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(pytheas::download::io::write),
        help("is the disk full, or the folder not writable for this user?")
    )]
    Write {
        /// The local file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DownloadError {
    /// Whether what came was wrong, as opposed to nothing having come.
    pub(crate) fn is_wrong_content(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::Truncated { .. } | Self::Mismatch { .. }
        )
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write {
            path: path.to_owned(),
            source,
        }
    }
}

/// The file `path`, at most `max_bytes` long; `None` when there is none.
pub(crate) fn fetch_if_any(
    fetch: &mut dyn Fetch,
    path: &str,
    max_bytes: u64,
) -> Result<Option<Vec<u8>>, DownloadError> {
    let request = Request {
        path,
        range: None,
        max_bytes,
    };
    let body = fetch
        .fetch(&request)
        .map_err(|source| DownloadError::Transport {
            file: path.to_owned(),
            source,
        })?;
    let Some(body) = body else { return Ok(None) };
    let mut bytes = Vec::new(); // grows with what comes, not with what is announced
    body.reader
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| DownloadError::Broken {
            file: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > max_bytes {
        return Err(DownloadError::TooLarge {
            file: path.to_owned(),
            limit_bytes: max_bytes,
        });
    }
    Ok(Some(bytes))
}

/// The file `path`, at most `max_bytes` long.
pub(crate) fn fetch_some(
    fetch: &mut dyn Fetch,
    path: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, DownloadError> {
    fetch_if_any(fetch, path, max_bytes)?.ok_or_else(|| DownloadError::NotFound {
        file: path.to_owned(),
    })
}

/// The file `path`, which is exactly what `expected` says; asked for twice when it is not.
pub(crate) fn fetch_exactly(
    fetch: &mut dyn Fetch,
    path: &str,
    expected: &BlobRef,
) -> Result<Vec<u8>, DownloadError> {
    let mut attempt = || {
        let bytes = fetch_some(fetch, path, expected.size_bytes)?;
        check(path, &bytes, expected).map(|()| bytes)
    };
    match attempt() {
        Err(error) if error.is_wrong_content() => attempt(), // a proxy's hiccup, or a lie
        other => other,
    }
}

/// Whether `bytes` is what `expected` says.
pub(crate) fn check(path: &str, bytes: &[u8], expected: &BlobRef) -> Result<(), DownloadError> {
    if bytes.len() as u64 != expected.size_bytes {
        return Err(DownloadError::Truncated {
            file: path.to_owned(),
            expected_bytes: expected.size_bytes,
            found_bytes: bytes.len() as u64,
        });
    }
    let found = Sha256::of(bytes);
    if found != expected.sha256 {
        return Err(DownloadError::Mismatch {
            file: path.to_owned(),
            algorithm: "SHA-256",
            expected: expected.sha256.to_string(),
            found: found.to_string(),
        });
    }
    Ok(())
}

/// The bytes of `range` of the file `path`; what comes before them is read over when the other
/// side sends the whole file.
pub(crate) fn fetch_range(
    fetch: &mut dyn Fetch,
    path: &str,
    range: Range<u64>,
) -> Result<impl Read + use<>, DownloadError> {
    let wanted = range.end - range.start;
    let request = Request {
        path,
        range: Some(range.clone()),
        max_bytes: range.end,
    };
    let body = fetch
        .fetch(&request)
        .map_err(|source| DownloadError::Transport {
            file: path.to_owned(),
            source,
        })?
        .ok_or_else(|| DownloadError::NotFound {
            file: path.to_owned(),
        })?;
    let mut reader = body.reader;
    let before = range
        .start
        .checked_sub(body.start)
        .ok_or_else(|| DownloadError::Transport {
            file: path.to_owned(),
            source: format!(
                "asked for byte {} on, got byte {} on",
                range.start, body.start
            )
            .into(),
        })?;
    io::copy(&mut reader.by_ref().take(before), &mut io::sink()).map_err(|source| {
        DownloadError::Broken {
            file: path.to_owned(),
            source,
        }
    })?;
    Ok(reader.take(wanted))
}
