//! Whole directories and links: created, moved, swapped, removed, each surviving a power cut.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, chmodat, fchmod, fstat, openat, renameat,
        renameat_with, unlinkat,
    },
    io::Errno,
    path::Arg,
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

/// Deeper than this, folders are moved to the top before they are removed: a folder is open for
/// each level above.
const DEPTH: usize = 64;

/// Removes a file, link or directory with everything in it; nothing there is success.
///
/// Read-only directories are made writable on the way; links are removed, never followed, also
/// when somebody who may write there puts one in the place of a directory meanwhile.
///
/// # Errors
/// Whatever the file system says.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let Some(top) = remove_unless_dir(CWD, path)? else {
        return Ok(());
    };
    let mut moved = 0;
    // What lay too deep comes up, and goes the next time round.
    while empty(top.as_fd(), top.as_fd(), DEPTH, &mut moved)? {}
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

/// Removes what has this name in `dir`; a directory is opened instead, fit to be emptied.
fn remove_unless_dir(dir: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<Option<OwnedFd>> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // POSIX has EPERM for directories, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner_only = Mode::from_raw_mode(0o700);
    let opened = match openat(dir, name, flags, Mode::empty()) {
        // Never met by root, for whom a link here would be more than a nuisance.
        Err(Errno::ACCESS) => {
            chmodat(dir, name, owner_only, AtFlags::empty())?;
            openat(dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    if fstat(&opened)?.st_mode & 0o700 != 0o700 {
        fchmod(&opened, owner_only)?;
    }
    Ok(Some(opened))
}

/// Empties `dir`; whether something was moved to `top` instead.
fn empty(
    dir: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> io::Result<bool> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    let mut is_left = false;
    for name in &names {
        let name = name.as_c_str();
        let Some(child) = remove_unless_dir(dir, name)? else {
            continue;
        };
        if depth == 0 {
            let unique = format!(".removing-{}-{moved}", std::process::id());
            *moved += 1;
            match renameat_with(dir, name, top, unique.as_str(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {} // the next number next time
                Err(Errno::INVAL | Errno::NOSYS) => renameat(dir, name, top, unique.as_str())?,
                other => other?,
            }
            is_left = true;
            continue;
        }
        is_left |= empty(child.as_fd(), top, depth - 1, moved)?;
        drop(child);
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY) if is_left => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(is_left)
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

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

    #[test]
    fn a_tree_deeper_than_any_path_and_than_files_may_be_open_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        create_dir_all(&gone).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = openat(CWD, &gone, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::from_raw_mode(0o755)).unwrap();
            at = openat(&at, "deep", flags, Mode::empty()).unwrap();
        }
        remove_tree(&gone).unwrap();
        assert!(!gone.exists());
    }

    /// Somebody who may write in the folder makes a link of it while it is removed.
    #[test]
    fn no_link_is_followed_that_takes_the_place_of_a_folder_meanwhile() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (keep, gone) = (dir.path().join("keep"), dir.path().join("gone"));
        create_dir_all(&keep.join("x")).unwrap();
        let (folder, aside) = (gone.join("b"), gone.join("c"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = RenameFlags::EXCHANGE;
                while !done.load(Ordering::Relaxed) {
                    let _not_there = renameat_with(CWD, &folder, CWD, &aside, exchange);
                }
            });
            for _ in 0..200 {
                create_dir_all(&folder).unwrap();
                std::os::unix::fs::symlink(&keep, &aside).unwrap();
                // The swap may let a name come back; what counts is what is never touched.
                while gone.exists() && keep.join("x").is_dir() {
                    let _tried_again = remove_tree(&gone);
                }
                if !keep.join("x").is_dir() {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(keep.join("x").is_dir());
    }
}
