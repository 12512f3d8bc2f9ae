//! Replacing single files, whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{dirs::sync_dir, faults};

/// How the names of files begin that are being written.
const HALF: &str = ".replacing-";

/// Removes what replacements that were killed half way left in `dir`; no `dir` is success.
///
/// Only for whoever is the one to write there: a replacement that goes on in another process
/// would fail.
///
/// # Errors
/// Whatever the file system says.
pub fn sweep(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(HALF.as_bytes())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The bytes of the file `path`, at most `limit`; a device file (`/dev/zero`) has no length to ask.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`], or whatever the file system says.
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let why = format!("it is longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Replaces `path` by `bytes`, mode 0644; after a crash it holds the old or the new content, whole.
///
/// # Errors
/// Whatever the file system says; the old content is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, 0o644, |file| file.write_all(bytes))
}

/// As [`replace`], readable by the owner only (mode 0600): for keys and tokens.
///
/// # Errors
/// As [`replace`].
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, 0o600, |file| file.write_all(bytes))
}

/// As [`replace`], the content written by `write`, with the permission bits `mode`.
///
/// # Errors
/// What `write` or the file system says; the old content is then still there.
pub fn replace_with(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let dir = parent(path);
    // `-o /dev/stdout` is a mistake that must not cost the machine its device.
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let why = format!("`{}` is a device or a pipe, no file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // Same file system: the rename stays atomic.
    let mut temp = tempfile::Builder::new().prefix(HALF).tempfile_in(dir)?;
    write(temp.as_file_mut())?;
    let permitted = temp.as_file().set_permissions(Permissions::from_mode(mode));
    permitted.or_else(|error| match error.kind() {
        // A stick's FAT knows no permissions; what everybody may read needs none.
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied if mode & 0o044 == 0o044 => {
            Ok(())
        }
        _ => Err(error),
    })?;
    temp.as_file().sync_all()?; // content before name
    faults::point("replace:before-rename");
    temp.persist(path).map_err(|e| e.error)?;
    faults::point("replace:after-rename");
    sync_dir(dir) // name before success
}

/// The folder a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old").unwrap();
        let result = replace_with(&path, 0o644, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(result.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_or_a_pipe_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = replace(&path, b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"new").unwrap_err();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_a_killed_replacement_left_is_swept_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old").unwrap();
        let killed = replace_with(&path, 0o644, |_| {
            let half = fs::read_dir(dir.path())?
                .map(|entry| entry.map(|entry| entry.path()))
                .find(|found| found.as_ref().is_ok_and(|found| *found != path));
            let half = half.expect("it is being written")?;
            fs::copy(&half, half.with_file_name(".replacing-killed"))?;
            Err(io::Error::other("killed"))
        });
        assert!(killed.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        sweep(dir.path()).unwrap();
        sweep(&dir.path().join("none")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn secrets_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace_private(&path, b"secret").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
