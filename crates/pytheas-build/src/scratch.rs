//! Files in scratch folders: nobody reads them before the whole folder is synced and renamed into
//! place, so they are written without the cost of syncing each.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) use pytheas_project::scratch::{Scratch, folder};

/// Whether a file is a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mode 0644.
    Data,
    /// Mode 0755.
    Program,
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
    copy_tree_without(from, to, "")
}

/// As [`copy_tree`], without what is called `left_out` at the top.
///
/// Copies, not hard links: a link made by one build would change the time of a file that `tar` reads
/// in another's result, which then fails, and what is written to one bundle would be in all.
pub(crate) fn copy_tree_without(from: &Path, to: &Path, left_out: &str) -> io::Result<()> {
    let mut files = Vec::new();
    prepare(from, to, Some(left_out), &mut files)?;
    let copied = in_parallel(&files, |(path, target)| fs::copy(path, target).map(|_| ()));
    copied.into_iter().collect()
}

/// Makes the folders and links of the copy; collects the files.
fn prepare(
    from: &Path,
    to: &Path,
    left_out: Option<&str>,
    files: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for child in fs::read_dir(from)? {
        let child = child?;
        if left_out.is_some_and(|name| child.file_name() == name) {
            continue;
        }
        let (path, target) = (child.path(), to.join(child.file_name()));
        let kind = child.file_type()?;
        if kind.is_dir() {
            prepare(&path, &target, None, files)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else {
            files.push((path, target));
        }
    }
    Ok(())
}

/// How many threads this machine runs at once.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}

/// `work` done for each item by as many threads as the machine has processors; the results are in
/// the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    in_threads(processors(), items, work)
}

/// As [`in_parallel`], by this many threads.
pub(crate) fn in_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(|poison| poison.into_inner());
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
