//! A board's line as a test reads it: bytes up to a mark, within a time.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

/// `open(2)`'s flag: the line does not become this process's terminal.
const O_NOCTTY: i32 = 0o400;

pub(super) struct Line {
    file: File,
    bytes: Receiver<Vec<u8>>,
    read: Vec<u8>,
}

impl Line {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(O_NOCTTY)
            .open(path)
            .expect("a board's pty can be opened");
        let mut other = file.try_clone().expect("a file can be opened twice");
        let (sender, bytes) = mpsc::channel();
        // It ends at the next byte after this value is gone, or with the board.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = other.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            file,
            bytes,
            read: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.file
            .write_all(bytes)
            .expect("a board's line takes bytes");
    }

    /// What comes before `mark`, which is taken, too.
    pub(super) fn until(&mut self, mark: &[u8], patience: Duration) -> Vec<u8> {
        let end = Instant::now() + patience;
        loop {
            let found = self.read.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                let rest = self.read.split_off(at + mark.len());
                let mut before = std::mem::replace(&mut self.read, rest);
                before.truncate(at);
                return before;
            }
            match self
                .bytes
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(more) => self.read.extend(more),
                Err(_) => panic!(
                    "the board does not say {:?}; it said {:?}",
                    String::from_utf8_lossy(mark),
                    String::from_utf8_lossy(&self.read)
                ),
            }
        }
    }
}
