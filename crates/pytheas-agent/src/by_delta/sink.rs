//! Writes what a delta makes: contents as files in a folder, named by their hash once they are whole.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use pytheas_durable::faults;
use pytheas_release::{Sha256, delta::MadeSink};

use crate::written::Written;

/// The mode that nearly every file has in a slot: with it from the beginning, it need not get it there.
const MODE: u32 = 0o444;
/// The mode in which one that was left half made can be gone on with.
const WRITABLE: u32 = 0o644;

/// Where the content with this number is made.
pub(super) fn made_path(objects: &Path, number: usize) -> PathBuf {
    objects.join(format!("made-{number}"))
}

/// Contents as files in a folder.
pub(super) struct Sink<'a> {
    objects: &'a Path,
    written: &'a Written,
    open: Option<Open>,
}

/// The content that is being made.
struct Open {
    file: File,
    path: PathBuf,
    len: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(objects: &'a Path, written: &'a Written) -> Self {
        Self {
            objects,
            written,
            open: None,
        }
    }
}

impl MadeSink for Sink<'_> {
    fn begin(&mut self, number: usize, from: u64) -> io::Result<()> {
        let path = made_path(self.objects, number);
        let mut file = open(&path, from).or_else(|error| {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            fs::set_permissions(&path, Permissions::from_mode(WRITABLE))?;
            open(&path, from)
        })?;
        if from > 0 {
            // What a segment wrote that did not come to its end is cut off.
            file.set_len(from)?;
            file.seek(SeekFrom::Start(from))?;
        }
        let len = from;
        self.open = Some(Open { file, path, len });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(open) => {
                open.len += bytes.len() as u64;
                open.file.write_all(bytes)
            }
            None => Err(io::Error::other("no content was begun")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a download: what a power cut tears is found by its hash and made again"
    )]
    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        if let Some(Open { file, path, len }) = self.open.take() {
            pytheas_durable::begin_writing(&file, len);
            self.written.note(&file, sha256);
            fs::rename(path, self.objects.join(sha256.to_string()))?;
        }
        faults::point("agent:fetch:object");
        Ok(())
    }
}

/// Opens the file at `path` to be written from `from` on.
fn open(path: &Path, from: u64) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(from == 0)
        .mode(MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_left_half_made_is_gone_on_with_and_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let written = Written::default();
        let mut sink = Sink::new(dir.path(), &written);
        sink.begin(7, 0).unwrap();
        sink.write(b"begun, and more").unwrap();
        // A break: what is beyond the place that is known does not count.
        let mut sink = Sink::new(dir.path(), &written);
        sink.begin(7, 5).unwrap();
        sink.write(b", gone on with").unwrap();
        let sha256 = Sha256::of(b"begun, gone on with");
        sink.finish(sha256).unwrap();
        let made = dir.path().join(sha256.to_string());
        assert_eq!(fs::read(&made).unwrap(), b"begun, gone on with");
        let mode = fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o222 & !WRITABLE, 0);

        sink.begin(8, 0).unwrap();
        sink.write(b"something long").unwrap();
        let mut sink = Sink::new(dir.path(), &written);
        sink.begin(8, 0).unwrap();
        sink.write(b"short").unwrap();
        sink.finish(Sha256::of(b"short")).unwrap();
        let made = dir.path().join(Sha256::of(b"short").to_string());
        assert_eq!(fs::read(made).unwrap(), b"short");
    }
}
