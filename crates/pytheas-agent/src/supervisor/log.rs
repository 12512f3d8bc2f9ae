//! What the app writes, kept in `logs/app.log`: three files of 1 MiB, and the last lines in memory
//! for reports. A log that cannot be written (full disk) never holds the app up.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

pub(super) const FILE: &str = "app.log";
const MAX_BYTES: u64 = 1 << 20;
/// `app.log`, `app.log.1`, `app.log.2`.
const FILES: u32 = 3;
const LAST_LINES: usize = 40;
const MAX_LINE_BYTES: usize = 500;

pub(super) struct AppLog {
    path: PathBuf,
    file: Option<File>,
    size_bytes: u64,
    lines: VecDeque<String>,
    begun: Vec<u8>,
}

impl AppLog {
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let opened = fs::create_dir_all(dir).and_then(|()| append_to(&path));
        let file = opened
            .inspect_err(|error| warn!("cannot write `{}`: {error}", path.display()))
            .ok();
        let size_bytes = file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |metadata| metadata.len());
        Self {
            path,
            file,
            size_bytes,
            lines: VecDeque::new(),
            begun: Vec::new(),
        }
    }

    /// Takes what the app wrote.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.begun.len() < MAX_LINE_BYTES {
                self.begun.push(byte);
            }
        }
        self.append(bytes);
    }

    /// Writes a line of our own between the app's.
    pub(super) fn mark(&mut self, text: &str) {
        if !self.begun.is_empty() {
            self.end_line();
            self.append(b"\n");
        }
        self.append(format!("--- pytheas: {text}\n").as_bytes());
    }

    /// The newest lines of the app, oldest first.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let begun = (!self.begun.is_empty()).then(|| line(&self.begun));
        self.lines.iter().cloned().chain(begun).collect()
    }

    /// Forgets the lines in memory: another release runs from here on.
    pub(super) fn begin_release(&mut self) {
        self.lines.clear();
        self.begun.clear();
    }

    fn end_line(&mut self) {
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line(&self.begun));
        self.begun.clear();
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.size_bytes + bytes.len() as u64 > MAX_BYTES && self.size_bytes > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = append_to(&self.path).ok(); // there was no room for a new one
        }
        let Some(file) = &mut self.file else { return };
        if file.write_all(bytes).is_ok() {
            self.size_bytes += bytes.len() as u64;
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a log that loses a rotation in a power cut does no harm"
    )]
    fn rotate(&mut self) {
        let numbered = |n: u32| match n {
            0 => self.path.clone(),
            n => self.path.with_extension(format!("log.{n}")),
        };
        for n in (1..FILES).rev() {
            let _not_there_yet = fs::rename(numbered(n - 1), numbered(n));
        }
        self.file = append_to(&self.path).ok();
        self.size_bytes = 0;
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\r')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_within_three_files_and_the_last_lines_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = AppLog::open(dir.path());
        let long = "x".repeat(990);
        for i in 0..5000 {
            log.write(format!("{i} {long}\n").as_bytes());
        }
        log.write(b"half a l");
        log.write(b"ine \xff");
        let sizes: Vec<u64> = ["app.log", "app.log.1", "app.log.2"]
            .iter()
            .map(|name| fs::metadata(dir.path().join(name)).unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size <= MAX_BYTES), "{sizes:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        let lines = log.last_lines();
        assert_eq!(
            (lines.len(), lines[40].as_str()),
            (41, "half a line \u{fffd}")
        );
        assert!(lines[39].starts_with("4999 ") && lines[39].len() == MAX_LINE_BYTES);
    }

    #[test]
    fn an_earlier_log_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        AppLog::open(dir.path()).write(b"before\n");
        let mut log = AppLog::open(dir.path());
        log.mark("started a@1");
        log.write(b"after");
        assert_eq!(
            fs::read_to_string(dir.path().join(FILE)).unwrap(),
            "before\n--- pytheas: started a@1\nafter"
        );
    }

    #[test]
    fn a_log_that_cannot_be_written_still_knows_the_last_lines_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        pytheas_durable::replace(&path, b"a file in the way").unwrap();
        let mut log = AppLog::open(&path);
        log.write(b"one\n");
        assert_eq!(log.last_lines(), ["one"]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        log.write(b"two\n");
        assert_eq!(fs::read(path.join(FILE)).unwrap(), b"two\n");
    }
}
