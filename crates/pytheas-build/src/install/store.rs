//! The cache of unpacked wheels, by the wheel's SHA-256.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pytheas_project::Environment;
use pytheas_release::{RelPath, Sha256};

use super::{InstallError, io_error, unpack};
use crate::scratch::{self, Kind};

const CONTENTS: &str = "contents";
const FILES: &str = "files";

/// A file of a wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) sha256: Sha256,
    pub(super) size_bytes: u64,
    pub(super) kind: Kind,
}

/// What an unpacked wheel holds, as it lies in site-packages.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// The wheel's file name.
    pub(super) name: String,
    sha256: Sha256,
    pub(super) files: BTreeMap<RelPath, File>,
}

impl Contents {
    pub(super) fn new(name: &str, sha256: Sha256, files: BTreeMap<RelPath, File>) -> Self {
        Self {
            name: name.to_owned(),
            sha256,
            files,
        }
    }

    fn encode(&self) -> String {
        let mut text = String::new();
        for (path, file) in &self.files {
            let kind = if file.kind == Kind::Program { 'x' } else { 'f' };
            text.push_str(&format!(
                "{} {} {kind} {path}\n",
                file.sha256, file.size_bytes
            ));
        }
        let own = Sha256::of(text.as_bytes());
        text.push_str(&format!("{own}\n"));
        text
    }

    fn parse(name: &str, sha256: Sha256, text: &str) -> Option<Self> {
        let (lines, own) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let lines_text = &text[..=lines.len()];
        if own.parse::<Sha256>().ok()? != Sha256::of(lines_text.as_bytes()) {
            return None;
        }
        let file = |line: &str| {
            let mut parts = line.splitn(4, ' ');
            let (sha256, size, kind) = (parts.next()?, parts.next()?, parts.next()?);
            let file = File {
                sha256: sha256.parse().ok()?,
                size_bytes: size.parse().ok()?,
                kind: if kind == "x" {
                    Kind::Program
                } else {
                    Kind::Data
                },
            };
            Some((parts.next()?.parse().ok()?, file))
        };
        let files = lines.lines().map(file).collect::<Option<_>>()?;
        Some(Self::new(name, sha256, files))
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(environment: &Environment) -> Self {
        Self {
            dir: environment.cache_dir().join("wheels"),
        }
    }

    fn home(&self, sha256: Sha256) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    /// A folder for work on the cache's file system.
    pub(super) fn scratch(&self) -> Result<scratch::Scratch, InstallError> {
        std::fs::create_dir_all(&self.dir).map_err(io_error("make", &self.dir))?;
        scratch::folder(&self.dir, ".new-").map_err(io_error("make a folder in", &self.dir))
    }

    /// The contents of a wheel that was unpacked before.
    pub(super) fn contents(&self, name: &str, sha256: Sha256) -> Option<Contents> {
        let text = std::fs::read_to_string(self.home(sha256).join(CONTENTS)).ok()?;
        Contents::parse(name, sha256, &text)
    }

    /// The bytes of a wheel that was fetched before.
    pub(super) fn wheel_file(&self, sha256: Sha256) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.dir.join(format!("{sha256}.whl"))).ok()?;
        (Sha256::of(&bytes) == sha256).then_some(bytes)
    }

    /// Keeps the wheel `bytes` and unpacks it.
    pub(super) fn add(
        &self,
        name: &str,
        bytes: &[u8],
        sha256: Sha256,
    ) -> Result<Contents, InstallError> {
        if let Some(contents) = self.contents(name, sha256) {
            return Ok(contents);
        }
        let scratch = self.scratch()?;
        let files = unpack::unpack(name, bytes, &scratch.path().join(FILES))?;
        let contents = Contents::new(name, sha256, files);
        let path = scratch.path().join(CONTENTS);
        scratch::write(&path, contents.encode().as_bytes(), Kind::Data)
            .map_err(io_error("write", &path))?;
        let home = self.home(sha256);
        if home.exists() && self.contents(name, sha256).is_none() {
            pytheas_durable::remove_tree(&home).map_err(io_error("remove", &home))?;
        }
        let moved = move_into(scratch.path(), &home);
        match moved {
            // Two builds at once: the other one was first, its result is the same.
            Err(source) if self.contents(name, sha256).is_none() => {
                return Err(io_error("make", &home)(source));
            }
            Err(_) => {}
            Ok(()) => {
                let _moved_away = scratch.keep();
            }
        }
        // It is there when it was fetched before, and checked then.
        if self.wheel_file(sha256).is_none() {
            self.keep(&self.dir.join(format!("{sha256}.whl")), bytes)?;
        }
        Ok(contents)
    }

    /// Where the file `path` of an unpacked wheel lies.
    pub(super) fn path(&self, wheel: &Contents, path: &RelPath) -> PathBuf {
        path.under(&self.home(wheel.sha256).join(FILES))
    }

    /// Copies the file `path` of a wheel to `to`, hashed on the way.
    pub(super) fn copy(
        &self,
        wheel: &Contents,
        path: &RelPath,
        to: &Path,
    ) -> Result<(), InstallError> {
        let Some(file) = wheel.files.get(path) else {
            return Ok(());
        };
        let from = self.path(wheel, path);
        let bytes = std::fs::read(&from).unwrap_or_default();
        let bytes = if Sha256::of(&bytes) == file.sha256 {
            bytes
        } else {
            self.restored(wheel, path)?
        };
        scratch::write(to, &bytes, file.kind).map_err(io_error("write", to))
    }

    /// A file that is damaged in the cache, from the wheel itself.
    fn restored(&self, wheel: &Contents, path: &RelPath) -> Result<Vec<u8>, InstallError> {
        let home = self.home(wheel.sha256);
        tracing::warn!(path = %home.display(), "a damaged entry of the cache is replaced");
        let bytes = self.wheel_file(wheel.sha256).ok_or_else(|| {
            io_error("read", &home)(std::io::Error::other(
                "its files are damaged; remove it and build again",
            ))
        })?;
        let scratch = self.scratch()?;
        unpack::unpack(&wheel.name, &bytes, scratch.path())?;
        let fresh = path.under(scratch.path());
        std::fs::read(&fresh).map_err(io_error("read", &fresh))
    }

    /// A source distribution that was fetched before.
    pub(super) fn source(&self, name: &str, sha256: Sha256) -> Option<PathBuf> {
        let path = self.dir.join(format!("{sha256}.sdist")).join(name);
        let bytes = std::fs::read(&path).ok()?;
        (Sha256::of(&bytes) == sha256).then_some(path)
    }

    /// Keeps a source distribution; gives its place.
    pub(super) fn add_source(
        &self,
        name: &str,
        bytes: &[u8],
        sha256: Sha256,
    ) -> Result<PathBuf, InstallError> {
        let name: RelPath = name.parse().map_err(|reason| InstallError::Wheel {
            file: name.to_owned(),
            reason: format!("its name {reason}"),
        })?;
        let path = name.under(&self.dir.join(format!("{sha256}.sdist")));
        self.keep(&path, bytes)?;
        Ok(path)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a cache: a torn file does not have its hash and is fetched again"
    )]
    fn keep(&self, path: &Path, bytes: &[u8]) -> Result<(), InstallError> {
        let scratch = self.scratch()?;
        let fresh = scratch.path().join("file");
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        }
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, path))
            .map_err(io_error("write", path))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a cache: files are hashed when they are used, so nothing is synced"
)]
fn move_into(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}
