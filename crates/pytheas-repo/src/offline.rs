//! The file for a USB stick: a part of a repository, whole enough to update devices from, in one
//! file that is read where it lies.
//!
//! A POSIX `ustar` archive (IEEE 1003.1-2017, "pax", "ustar Interchange Format") in its narrowest
//! form, so that `tar xf` gives a repository that any web server can serve and `sha256sum -c
//! SHA256SUMS` checks it:
//! ```text
//! export.json    {"format": 1, "releases": ["greenhouse/1.1.0/linux-x86_64/release.json"]}
//! blobs/…        as they lie in the repository, sorted by path, each path once
//! metadata/…
//! targets/…
//! SHA256SUMS     "<sha256>  <path>\n" for each file above, in that order
//! 1024 zero bytes, and nothing after them
//! ```
//! Same content, same bytes: mode 0644, no owner, no time; a header that is not byte for byte the
//! one [`header`] makes of its path and size is refused, as is padding that is not zero.
//!
//! Nothing here makes a release genuine: the list of releases is a table of contents of which only
//! the *names* are used, and what lies below them is judged by the client as if it had come from
//! the hub. [`OfflineFile::check`] finds damage early, before an update has begun.
//!
//! Invariants: no path leads out of the repository, no length is believed before it is known to lie
//! in the file, memory stays below a few megabytes whatever the file says.

mod error;
mod format;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use pytheas_release::Hasher;
use serde::{Deserialize, Serialize};

pub use error::OfflineError;
pub use format::{HeaderError, MEMBERS_MAX, Member, ScanError, header, padding, scan};

use crate::fetch::{Body, Fetch, Request, TransportError};

/// Path of the table of contents, the first file.
pub const CONTENTS: &str = "export.json";
/// Path of the check sums, the last file.
pub const SUMS: &str = "SHA256SUMS";
/// What an archive ends with: two blocks of zeros.
pub const END_BYTES: u64 = 1024;

/// Longest table of contents, in bytes.
const CONTENTS_MAX: u64 = 1 << 20;
/// Longest list of check sums, in bytes: a digest and a path for each file.
const SUMS_MAX: u64 = MEMBERS_MAX as u64 * 360;
/// Longest metadata file whose expiry is looked at, in bytes.
const METADATA_MAX: u64 = 16 << 20;

/// The content of `export.json` (format 1): what is in the file, by the exporter's word alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Format of the file: 1.
    pub format: u32,
    /// Names of the TUF targets, sorted.
    pub releases: Vec<String>,
}

/// When metadata in an offline file expires, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The metadata file.
    pub file: String,
    /// When it expires.
    pub expires: Timestamp,
}

struct Opened {
    path: PathBuf,
    file: File,
    len: u64,
    members: Vec<Member>,
}

/// An offline file, opened: its headers are read and sound, its contents are read when asked for.
#[derive(Clone)]
pub struct OfflineFile {
    opened: Arc<Opened>,
    contents: Contents,
}

impl OfflineFile {
    /// The offline file `path`.
    ///
    /// # Errors
    /// [`OfflineError`]: it cannot be read, is cut short, or is something else.
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        let cannot_open = |source| OfflineError::Open {
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened: a pipe would be waited for.
        if !std::fs::metadata(path).map_err(cannot_open)?.is_file() {
            return Err(OfflineError::no_export(path, "it is no file"));
        }
        let file = File::open(path).map_err(cannot_open)?;
        Self::of(path, file)
    }

    /// The offline file that is open as `file`; `path` is what messages call it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(path: &Path, file: File) -> Result<Self, OfflineError> {
        let cannot_open = |source| OfflineError::Open {
            path: path.to_owned(),
            source,
        };
        let len = file.metadata().map_err(cannot_open)?.len();
        let members = scan(len, &mut |at, block| file.read_exact_at(block, at))
            .map_err(|error| OfflineError::scan(path, error))?;
        let opened = Arc::new(Opened {
            path: path.to_owned(),
            file,
            len,
            members,
        });
        let [first, .., last] = &opened.members[..] else {
            return Err(OfflineError::no_export(path, "it is empty"));
        };
        if first.path != CONTENTS || last.path != SUMS {
            let why = format!("it does not begin with `{CONTENTS}` and end with `{SUMS}`");
            return Err(OfflineError::no_export(path, why));
        }
        let bytes = opened.read(first, CONTENTS_MAX)?;
        let contents: Contents = serde_json::from_slice(&bytes)
            .map_err(|error| OfflineError::damaged(path, CONTENTS, error.to_string()))?;
        if contents.format != 1 {
            return Err(OfflineError::Format {
                path: path.to_owned(),
                format: contents.format,
            });
        }
        Ok(Self { opened, contents })
    }

    /// Names of the TUF targets that are said to be in it.
    pub fn releases(&self) -> &[String] {
        &self.contents.releases
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }

    /// Its length.
    pub fn size_bytes(&self) -> u64 {
        self.opened.len
    }

    /// The files in it, sorted by path between the first and the last.
    pub fn members(&self) -> &[Member] {
        &self.opened.members
    }

    /// The file `path` of the repository, at most `limit` bytes long; `None` when it is not there.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, OfflineError> {
        let found = self.opened.find(path);
        found
            .map(|found| self.opened.read(found, limit))
            .transpose()
    }

    /// Reads every byte once and compares it with the check sums; `progress` is told how many of
    /// [`Self::size_bytes`] are done. A copy that went wrong shows here, before anything is begun;
    /// a forgery shows in the client.
    ///
    /// # Errors
    /// [`OfflineError::Damaged`], naming the file inside.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), OfflineError> {
        let path = &self.opened.path;
        let Some((last, members)) = self.opened.members.split_last() else {
            return Ok(());
        };
        let sums = self.opened.read(last, SUMS_MAX)?;
        let mut sums = sums.split_inclusive(|byte| *byte == b'\n');
        for member in members {
            let mut hasher = Hasher::new();
            let mut at = member.offset;
            let end = member.offset + member.size_bytes;
            let mut buffer = vec![0; 256 << 10];
            while at < end {
                let n = usize::try_from(end - at).unwrap_or(usize::MAX);
                let n = n.min(buffer.len());
                self.opened.exactly(at, &mut buffer[..n], &member.path)?;
                hasher.update(&buffer[..n]);
                at += n as u64;
                progress(at);
            }
            self.opened
                .zeros(end, padding(member.size_bytes), &member.path)?;
            let line = format!("{}  {}\n", hasher.finish(), member.path);
            if sums.next() != Some(line.as_bytes()) {
                let why = format!("its SHA-256 is not the one in `{SUMS}`");
                return Err(OfflineError::damaged(path, &member.path, why));
            }
        }
        if sums.next().is_some() {
            return Err(OfflineError::damaged(
                path,
                SUMS,
                "it lists more files than there are",
            ));
        }
        let end = last.offset + last.size_bytes;
        self.opened.zeros(end, self.opened.len - end, SUMS)?;
        progress(self.opened.len);
        Ok(())
    }

    /// When its metadata expires, by its own word: the newest root, timestamp, and all that
    /// snapshot and targets metadata there is; the earliest first.
    ///
    /// # Errors
    /// [`OfflineError`] when it cannot be read or is no metadata.
    pub fn expiries(&self) -> Result<Vec<Expiry>, OfflineError> {
        #[derive(Deserialize)]
        struct Envelope {
            signed: Signed,
        }
        #[derive(Deserialize)]
        struct Signed {
            expires: Timestamp,
        }
        let root_version = |path: &str| -> Option<u64> {
            let name = path.strip_prefix("metadata/")?;
            name.strip_suffix(".root.json")?.parse().ok()
        };
        let members = &self.opened.members;
        let newest_root = members.iter().filter_map(|m| root_version(&m.path)).max();
        let mut expiries = Vec::new();
        for member in members {
            let old_root = root_version(&member.path).is_some_and(|n| Some(n) != newest_root);
            if !member.path.starts_with("metadata/") || old_root {
                continue;
            }
            let bytes = self.opened.read(member, METADATA_MAX)?;
            let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|error| {
                OfflineError::damaged(&self.opened.path, &member.path, error.to_string())
            })?;
            expiries.push(Expiry {
                file: member.path.clone(),
                expires: envelope.signed.expires,
            });
        }
        expiries.sort_by_key(|expiry| expiry.expires);
        Ok(expiries)
    }
}

impl std::fmt::Debug for OfflineFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfflineFile")
            .field("path", &self.opened.path)
            .finish_non_exhaustive()
    }
}

impl Opened {
    fn find(&self, path: &str) -> Option<&Member> {
        // The first and the last are no files of the repository; those between are sorted.
        let inner = self.members.get(1..self.members.len() - 1)?;
        let at = inner.binary_search_by(|member| member.path.as_str().cmp(path));
        inner.get(at.ok()?)
    }

    fn read(&self, member: &Member, limit: u64) -> Result<Vec<u8>, OfflineError> {
        if member.size_bytes > limit {
            let why = format!("it has {} bytes, {limit} are allowed", member.size_bytes);
            return Err(OfflineError::damaged(&self.path, &member.path, why));
        }
        let mut bytes = vec![0; usize::try_from(member.size_bytes).unwrap_or(0)];
        self.exactly(member.offset, &mut bytes, &member.path)?;
        Ok(bytes)
    }

    fn exactly(&self, at: u64, buffer: &mut [u8], member: &str) -> Result<(), OfflineError> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(|source| OfflineError::Read {
                path: self.path.clone(),
                member: member.to_owned(),
                source,
            })
    }

    fn zeros(&self, at: u64, len: u64, member: &str) -> Result<(), OfflineError> {
        let mut buffer = [0; 2048];
        let buffer = &mut buffer[..usize::try_from(len).unwrap_or(0).min(2048)];
        self.exactly(at, buffer, member)?;
        if buffer.iter().any(|byte| *byte != 0) {
            let why = "there is something behind it where nothing may be";
            return Err(OfflineError::damaged(&self.path, member, why));
        }
        Ok(())
    }
}

/// Reads it where it lies; nothing is copied.
impl Fetch for OfflineFile {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        let Some(member) = self.opened.find(request.path) else {
            return Ok(None);
        };
        let (start, end) = match &request.range {
            None => (0, member.size_bytes),
            Some(range) => (range.start, range.end.min(member.size_bytes)),
        };
        let reader = Section {
            opened: Arc::clone(&self.opened),
            at: member.offset.saturating_add(start.min(end)),
            end: member.offset + end,
        };
        Ok(Some(Body {
            start,
            reader: Box::new(reader),
        }))
    }
}

/// A part of the file.
struct Section {
    opened: Arc<Opened>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        let n = self.opened.file.read_at(&mut buffer[..n], self.at)?;
        if n == 0 && left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has become shorter",
            ));
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// The line of `SHA256SUMS` for a file.
#[cfg(feature = "store")]
pub(crate) fn sum_line(sha256: &pytheas_release::Sha256, path: &str) -> String {
    format!("{sha256}  {path}\n")
}
