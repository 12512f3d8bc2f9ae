//! Whole directories and links: created, moved, swapped, removed, each surviving a power cut.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{faults, files::parent};

/// Makes the names in `dir` durable.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and what is missing above it, each name synced into its parent.
///
/// # Errors
/// Whatever the file system says.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    if above != dir {
        create_dir_all(above)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(above),
    }
}

/// Renames the directory `from` to `to` (same file system; `to` must not exist or be empty).
///
/// What lies in `from` must have been synced before ([`crate::trees::sync`]).
///
/// # Errors
/// Whatever the file system says.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the durable rename itself"
)]
pub fn move_dir(from: &Path, to: &Path) -> io::Result<()> {
    faults::point("move-dir:before");
    fs::rename(from, to)?;
    faults::point("move-dir:after");
    sync_dir(parent(to))?;
    if parent(from) != parent(to) {
        sync_dir(parent(from))?;
    }
    Ok(())
}

/// Puts the directory `fresh` in the place of `old`, which exists, in one step; the old one is then
/// at `fresh`. On file systems that cannot exchange, the old one is moved to `aside` first, and for
/// that moment there is none.
///
/// # Errors
/// Whatever the file system says.
pub fn exchange_dirs(fresh: &Path, old: &Path, aside: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, fresh, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_dir(parent(old))?;
            sync_dir(parent(fresh))
        }
        Err(Errno::INVAL | Errno::NOSYS) => {
            move_dir(old, aside)?;
            move_dir(fresh, old).inspect_err(|_| {
                let _as_it_was = move_dir(aside, old);
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Points the symbolic link `link` to `target`; at every moment it points to the old or the new.
///
/// # Errors
/// Whatever the file system says; the link is then as it was.
#[expect(
    clippy::disallowed_methods,
    reason = "the rename is followed by a sync of the folder"
)]
pub fn swap_symlink(link: &Path, target: &Path) -> io::Result<()> {
    let dir = parent(link);
    let mut name = link.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = dir.join(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &fresh)?;
    faults::point("swap-symlink:before");
    fs::rename(&fresh, link)?;
    faults::point("swap-symlink:after");
    sync_dir(dir)
}

/// Removes a file, link or directory with everything in it; nothing there is success.
///
/// Read-only directories are made writable on the way; links are removed, never followed.
///
/// # Errors
/// Whatever the file system says.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    if metadata.permissions().mode() & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    for child in fs::read_dir(path)? {
        remove_tree(&child?.path())?;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_swapped_even_when_an_earlier_swap_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        swap_symlink(&link, Path::new("slots/a")).unwrap();
        std::os::unix::fs::symlink("slots/torn", dir.path().join("current.new")).unwrap();
        swap_symlink(&link, Path::new("slots/b")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("slots/b"));
    }

    #[test]
    fn directories_change_places() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        create_dir_all(&a.join("new")).unwrap();
        create_dir_all(&b.join("old")).unwrap();
        exchange_dirs(&a, &b, &dir.path().join("aside")).unwrap();
        assert!(b.join("new").is_dir() && !b.join("old").exists());
    }

    #[test]
    fn removing_follows_no_links_and_minds_no_read_only_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (keep, gone) = (dir.path().join("keep"), dir.path().join("gone"));
        create_dir_all(&keep.join("x")).unwrap();
        create_dir_all(&gone.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&keep, gone.join("link")).unwrap();
        fs::set_permissions(gone.join("a"), Permissions::from_mode(0o500)).unwrap();
        remove_tree(&gone).unwrap();
        remove_tree(&gone).unwrap();
        assert!(keep.join("x").is_dir() && !gone.exists());
    }
}
