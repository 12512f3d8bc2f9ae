//! Trees on disk: read into a [`Tree`], compared with one, synced.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Read},
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use pytheas_release::{Entry, Hasher, PathError, RelPath, Sha256, Tree, TreeError, delta::Files};

/// The files of the tree that lies in a folder.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Files for Folder {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        self.read_into(path, offset, len, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(
        &self,
        path: &RelPath,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let file = File::open(path.under(&self.0))?;
        let from = out.len();
        out.reserve_exact(len);
        out.resize(from + len, 0);
        file.read_exact_at(&mut out[from..], offset)
            .inspect_err(|_| out.truncate(from))
    }
}

/// A folder that cannot be read as a tree.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A name that no tree can hold.
    #[error("the name `{}` {reason}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A socket, device or pipe.
    #[error("`{}` is no file, folder or link", path.display())]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// Not readable.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A link out of the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What the system says about a file, as far as it tells whether it is the one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Device and inode: the same for all hard links of a file.
    pub id: (u64, u64),
    /// Length in bytes.
    pub len: u64,
    /// When its content changed last: seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
    executable: bool,
}

impl Facts {
    /// Those of `metadata`.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            id: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            executable: metadata.permissions().mode() & 0o100 != 0,
        }
    }
}

/// Tells the hash of a file that need not be read for it.
pub type Known<'a> = dyn Fn(&RelPath, &Facts) -> Option<Sha256> + Sync + 'a;

/// The tree in the folder `root`, every byte read.
///
/// # Errors
/// [`ScanError`], naming the file.
pub fn scan(root: &Path) -> Result<Tree, ScanError> {
    scan_but(root, &|_, _| None)
}

fn scan_but(root: &Path, known: &Known<'_>) -> Result<Tree, ScanError> {
    let mut found = Vec::new();
    list(root, root, &mut found)?;
    let files = read_all(root, &found, known)?;
    let mut tree = Tree::default();
    for ((path, kind), file) in found.into_iter().zip(files) {
        let entry = match (kind, file) {
            (Found::Link(target), _) => Entry::Symlink { target },
            (Found::EmptyDirectory, _) => Entry::Directory,
            (Found::File, Some(file)) => file,
            (Found::File, None) => unreachable!("every file was read"),
        };
        tree.insert(path, entry)?;
    }
    Ok(tree)
}

/// Size in bytes and hash of a file.
///
/// # Errors
/// Whatever the file system says.
pub fn hash_file(path: &Path) -> io::Result<(u64, Sha256)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size_bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size_bytes, hasher.finish())),
            n => {
                hasher.update(&buffer[..n]);
                size_bytes += n as u64;
            }
        }
    }
}

/// How a folder differs from the tree it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// In the tree, not on disk.
    Missing(RelPath),
    /// On disk, not in the tree.
    Extra(RelPath),
    /// There, but with another content, kind or mode.
    Changed(RelPath),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "`{path}` is missing"),
            Self::Extra(path) => write!(f, "`{path}` does not belong there"),
            Self::Changed(path) => write!(f, "`{path}` has another content or mode"),
        }
    }
}

/// How the folder `root` differs from `tree`, every byte read; empty when it is the tree.
///
/// # Errors
/// [`ScanError`] when the folder cannot be read.
pub fn differences(root: &Path, tree: &Tree) -> Result<Vec<Difference>, ScanError> {
    differences_but(root, tree, &|_, _| None)
}

/// As [`differences`], but what is `known` is not read.
///
/// # Errors
/// As [`differences`].
pub fn differences_but(
    root: &Path,
    tree: &Tree,
    known: &Known<'_>,
) -> Result<Vec<Difference>, ScanError> {
    let actual = scan_but(root, known)?;
    let mut found = Vec::new();
    for (path, entry) in tree.iter() {
        match actual.get(path) {
            None => found.push(Difference::Missing(path.clone())),
            Some(other) if other != entry => found.push(Difference::Changed(path.clone())),
            Some(_) => {}
        }
    }
    for (path, _) in actual.iter() {
        if tree.get(path).is_none() {
            found.push(Difference::Extra(path.clone()));
        }
    }
    Ok(found)
}

/// Sets the modes a tree has: 0755 for folders and executables, 0644 for other files, less `mask`.
///
/// With `mask` 0o222 the files become read-only (folders keep their owner's write bit, so that the
/// tree can be removed).
///
/// # Errors
/// Whatever the file system says.
pub fn set_modes(root: &Path, mask: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(root)?;
    if metadata.is_dir() {
        fs::set_permissions(root, Permissions::from_mode(0o755))?;
        for child in fs::read_dir(root)? {
            set_modes(&child?.path(), mask)?;
        }
    } else if metadata.is_file() {
        let full = if metadata.permissions().mode() & 0o100 != 0 {
            0o755
        } else {
            0o644
        };
        if metadata.permissions().mode() & 0o7777 != full & !mask {
            fs::set_permissions(root, Permissions::from_mode(full & !mask))?;
        }
    }
    Ok(())
}

/// Syncs everything below `root`: the whole file system in one call where the kernel can.
///
/// # Errors
/// Whatever the file system says.
pub fn sync(root: &Path) -> io::Result<()> {
    // syncfs(2) reports write errors since Linux 5.8; one call instead of thousands of fsyncs.
    rustix::fs::syncfs(File::open(root)?)?;
    Ok(())
}

enum Found {
    File,
    Link(String),
    EmptyDirectory,
}

fn list(root: &Path, dir: &Path, found: &mut Vec<(RelPath, Found)>) -> Result<(), ScanError> {
    let io = |path: &Path, source| ScanError::Io {
        path: path.to_owned(),
        source,
    };
    let mut children = fs::read_dir(dir)
        .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
        .map_err(|e| io(dir, e))?;
    children.sort_by_cached_key(fs::DirEntry::file_name);
    if children.is_empty() && dir != root {
        found.push((relative(root, dir)?, Found::EmptyDirectory));
    }
    for child in children {
        let path = child.path();
        let kind = child.file_type().map_err(|e| io(&path, e))?;
        if kind.is_dir() {
            list(root, &path, found)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| io(&path, e))?;
            let target = target
                .into_os_string()
                .into_string()
                .map_err(|_| ScanError::Name {
                    path: path.clone(),
                    reason: PathError::NotUtf8,
                })?;
            found.push((relative(root, &path)?, Found::Link(target)));
        } else if kind.is_file() {
            found.push((relative(root, &path)?, Found::File));
        } else {
            return Err(ScanError::Special { path });
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<RelPath, ScanError> {
    let below = path.strip_prefix(root).unwrap_or(path);
    RelPath::from_path(below).map_err(|reason| ScanError::Name {
        path: path.to_owned(),
        reason,
    })
}

/// The entry of a file, which is read unless its hash is `known`.
fn read(root: &Path, path: &RelPath, known: &Known<'_>) -> io::Result<Entry> {
    let place = path.under(root);
    let facts = Facts::of(&fs::symlink_metadata(&place)?);
    let (size_bytes, sha256) = match known(path, &facts) {
        Some(sha256) => (facts.len, sha256),
        None => hash_file(&place)?,
    };
    Ok(Entry::File {
        size_bytes,
        sha256,
        executable: facts.executable,
    })
}

/// The entries of the files among `found`, read on every core; `None` for what is no file.
fn read_all(
    root: &Path,
    found: &[(RelPath, Found)],
    known: &Known<'_>,
) -> Result<Vec<Option<Entry>>, ScanError> {
    let results = Mutex::new(vec![None; found.len()]);
    let failure = Mutex::new(None);
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, kind)) = found.get(at) else {
                break;
            };
            if !matches!(kind, Found::File) {
                continue;
            }
            match read(root, path, known) {
                Ok(entry) => {
                    results.lock().unwrap_or_else(|e| e.into_inner())[at] = Some(entry);
                }
                Err(source) => {
                    let path = path.under(root);
                    failure
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .get_or_insert(ScanError::Io { path, source });
                    next.store(found.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(results.into_inner().unwrap_or_else(|e| e.into_inner())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replace;

    #[test]
    fn a_scanned_folder_is_the_same_tree_whatever_its_times_and_owner_bits() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let root = dir.path().join(name);
            crate::create_dir_all(&root.join("bin")).unwrap();
            crate::create_dir_all(&root.join("empty")).unwrap();
            replace(&root.join("bin/app"), b"#!/bin/sh\n").unwrap();
            std::os::unix::fs::symlink("app", root.join("bin/link")).unwrap();
            let mode = if name == "a" { 0o755 } else { 0o700 };
            fs::set_permissions(root.join("bin/app"), Permissions::from_mode(mode)).unwrap();
        }
        let (a, b) = (
            scan(&dir.path().join("a")).unwrap(),
            scan(&dir.path().join("b")).unwrap(),
        );
        assert_eq!(a.id(), b.id());
        assert_eq!(a.len(), 3);
        replace(&dir.path().join("b/bin/app"), b"#!/bin/xx\n").unwrap();
        replace(&dir.path().join("b/new"), b"").unwrap();
        fs::remove_dir(dir.path().join("b/empty")).unwrap();
        let found: Vec<_> = differences(&dir.path().join("b"), &a)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "`bin/app` has another content or mode",
                "`empty` is missing",
                "`new` does not belong there",
            ]
        );
    }

    #[test]
    fn what_no_tree_can_hold_is_named() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
        replace(&odd, b"").unwrap();
        assert!(matches!(
            scan(dir.path()),
            Err(ScanError::Name {
                reason: PathError::NotUtf8,
                ..
            })
        ));
        fs::remove_file(odd).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(matches!(scan(dir.path()), Err(ScanError::Special { .. })));
    }

    #[test]
    fn modes_become_those_of_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("f"), b"").unwrap();
        set_modes(dir.path(), 0o222).unwrap();
        let mode = |p: &str| {
            fs::metadata(dir.path().join(p))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("f"), mode(".")), (0o444, 0o755));
    }
}
