//! A board's line as a test reads it: bytes up to a mark, within a time.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

pub(super) struct Line {
    file: File,
    read: Vec<u8>,
}

impl Line {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            // It does not become this process's terminal.
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(path)
            .expect("a board's pty can be opened");
        Self {
            file,
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
        self.find(mark, patience).unwrap_or_else(|| {
            panic!(
                "the board does not say {:?}; it said {:?}",
                String::from_utf8_lossy(mark),
                String::from_utf8_lossy(&self.read)
            )
        })
    }

    /// The same; none when it does not come in time.
    pub(super) fn find(&mut self, mark: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        loop {
            let found = self.read.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                let rest = self.read.split_off(at + mark.len());
                let mut before = std::mem::replace(&mut self.read, rest);
                before.truncate(at);
                return Some(before);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let left = Timespec::try_from(left).ok()?;
            let mut wanted = [PollFd::new(&self.file, PollFlags::IN)];
            if poll(&mut wanted, Some(&left)).ok()? == 0 {
                return None;
            }
            let mut buffer = [0; 4096];
            let size = self.file.read(&mut buffer).ok().filter(|size| *size > 0)?;
            self.read.extend_from_slice(&buffer[..size]);
        }
    }
}
