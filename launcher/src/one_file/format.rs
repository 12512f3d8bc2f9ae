//! The file read: its trailer, the records of its index, its frames.

use super::{Failure, zstd};
use crate::files::starts_with;

const TRAILER_LEN: usize = 256;
const INDEX_MAX: usize = 1 << 30;

/// The end of the file, checked.
pub struct Trailer {
    pub frames_at: usize,
    pub size_bytes: u64,
    pub frames: u64,
    pub id: &'static [u8],
    pub entry: &'static [u8],
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = 0;
    for index in (0..8).rev() {
        word = word << 8 | bytes.get(at + index).map_or(0, |byte| *byte as u64);
    }
    word
}

impl Trailer {
    pub fn read(file: &'static [u8]) -> Option<Self> {
        let trailer = &file[file.len().checked_sub(TRAILER_LEN)?..];
        let entry = &trailer[112..240];
        let entry = &entry[..entry.iter().position(|byte| *byte == 0)?];
        let is_good = starts_with(trailer, b"pytheas-one-file")
            && word(trailer, 16) == 1
            && word(trailer, 248) == zstd::xxh64(&trailer[..248])
            && !entry.is_empty();
        is_good.then(|| Self {
            frames_at: word(trailer, 24) as usize,
            size_bytes: word(trailer, 32),
            frames: word(trailer, 40),
            id: &trailer[48..112],
            entry,
        })
    }
}

/// One record of the index.
pub struct Record {
    pub kind: u8,
    pub size: u64,
    /// Ended by NUL.
    pub path: &'static [u8],
    /// Ended by NUL; empty when it is no link.
    pub target: &'static [u8],
}

/// The records of the index, front to back.
pub struct Index {
    pub rest: &'static [u8],
}

impl Index {
    fn text(&mut self) -> Result<&'static [u8], Failure> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(Failure::Damaged)?;
        let (text, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Ok(text)
    }

    pub fn next(&mut self) -> Result<Option<Record>, Failure> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.rest.len() < 10 {
            return Err(Failure::Damaged);
        }
        let (kind, size) = (self.rest[0], word(self.rest, 1));
        self.rest = &self.rest[9..];
        let path = self.text()?;
        let target = if kind == b'l' { self.text()? } else { b"" };
        // The builder writes no such paths; a file made by others shall not climb out either.
        let inside = path.len() > 1
            && path[0] != b'/'
            && path[..path.len() - 1]
                .split(|byte| *byte == b'/')
                .all(|part| part != b"..");
        if inside {
            Ok(Some(Record {
                kind,
                size,
                path,
                target,
            }))
        } else {
            Err(Failure::Damaged)
        }
    }
}

/// The frames of the file, unpacked one after another.
pub struct Frames {
    pub file: &'static [u8],
    pub at: usize,
    pub left: u64,
    pub decoder: zstd::Decoder,
}

impl Frames {
    /// The next frame's packed bytes and unpacked length.
    pub fn head(&mut self) -> Result<(&'static [u8], usize), Failure> {
        self.left = self.left.checked_sub(1).ok_or(Failure::Damaged)?;
        let lengths = word(
            self.file
                .get(self.at..self.at + 8)
                .ok_or(Failure::Damaged)?,
            0,
        );
        let (packed, unpacked) = ((lengths & 0xffff_ffff) as usize, (lengths >> 32) as usize);
        let from = self.at + 8;
        let frame = self.file.get(from..from + packed).ok_or(Failure::Damaged)?;
        self.at = from + packed;
        if unpacked > INDEX_MAX {
            Err(Failure::Damaged)
        } else {
            Ok((frame, unpacked))
        }
    }

    pub fn unpack(&mut self, frame: &[u8], to: &mut [u8]) -> Result<(), Failure> {
        self.decoder.decode(frame, to).map_err(|_| Failure::Damaged)
    }
}
