//! Files in scratch folders: nobody reads them before the whole folder is synced and renamed into
//! place, so they are written without the cost of syncing each.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::TempDir;

/// Whether a file is a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mode 0644.
    Data,
    /// Mode 0755.
    Program,
}

/// A new folder in `parent`, named by `prefix` and this process, removed when it is dropped. Those
/// of processes that were killed are removed first.
pub(crate) fn folder(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    for child in fs::read_dir(parent)?.flatten() {
        let name = child.file_name().to_string_lossy().into_owned();
        let Some(process) = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            tracing::debug!(path = %child.path().display(), "removing what a killed build left");
            let _ = pytheas_durable::remove_tree(&child.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{prefix}{}-", std::process::id()))
        .tempdir_in(parent)
}

/// Writes `bytes` to `path`; missing folders above it are made.
#[expect(
    clippy::disallowed_methods,
    reason = "a torn file in a scratch folder is never looked at"
)]
pub(crate) fn write(path: &Path, bytes: &[u8], kind: Kind) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?; // never through a link, never into a file shared with the cache
    }
    fs::write(path, bytes)?;
    let mode = if kind == Kind::Program { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Copies the file `from` to `to` with its content and whether it is a program; missing folders
/// above it are made.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_file(to)?; // as in `write`
    }
    fs::copy(from, to)?;
    let mode = fs::metadata(to)?.permissions().mode();
    let mode = if mode & 0o111 != 0 { 0o755 } else { 0o644 };
    fs::set_permissions(to, Permissions::from_mode(mode))
}

/// Copies the folder `from` with files, folders and symbolic links as they are.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for child in fs::read_dir(from)? {
        let child = child?;
        let (path, target) = (child.path(), to.join(child.file_name()));
        let kind = child.file_type()?;
        if kind.is_dir() {
            copy_tree(&path, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// As [`copy_tree`], without what is called `left_out` at the top.
///
/// Copies, not hard links: a link made by one build would change the time of a file that `tar` reads
/// in another's result, which then fails, and what is written to one bundle would be in all.
pub(crate) fn copy_tree_without(from: &Path, to: &Path, left_out: &str) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for child in fs::read_dir(from)? {
        let child = child?;
        if child.file_name() == left_out {
            continue;
        }
        let (path, target) = (child.path(), to.join(child.file_name()));
        let kind = child.file_type()?;
        if kind.is_dir() {
            copy_tree(&path, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
