//! The tree in a one-file bundle, without starting it (the format: `launcher/src/one_file.rs`).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use pytheas_release::RelPath;

use super::error::TestError;

const TRAILER_BYTES: i64 = 256;
/// No frame unpacks to more: the launcher's own limit is 16 MiB, the index may be larger.
const FRAME_MAX: u64 = 256 << 20;

/// Unpacks the one-file bundle `file` into the new folder `dir`.
pub(super) fn unpack(file: &Path, dir: &Path) -> Result<(), TestError> {
    let built = |reason: String| TestError::Built {
        path: file.to_owned(),
        reason,
    };
    read(file, dir).map_err(|error| built(error.to_string()))
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

fn number(bytes: &[u8], at: usize) -> io::Result<u64> {
    let part = bytes
        .get(at..at + 8)
        .ok_or_else(|| bad("it ends too early"))?;
    Ok(u64::from_le_bytes(part.try_into().unwrap_or_default()))
}

fn read(file: &Path, dir: &Path) -> io::Result<()> {
    let mut input = File::open(file)?;
    input
        .seek(SeekFrom::End(-TRAILER_BYTES))
        .map_err(|_| bad("it is no one-file bundle"))?;
    let mut trailer = Vec::new();
    input.read_to_end(&mut trailer)?;
    if !trailer.starts_with(b"pytheas-one-file") || number(&trailer, 16)? != 1 {
        return Err(bad("it is no one-file bundle"));
    }
    let (start, frames) = (number(&trailer, 24)?, number(&trailer, 40)?);
    input.seek(SeekFrom::Start(start))?;
    let index = frame(&mut input)?;
    let mut contents = Contents {
        input,
        left: frames.saturating_sub(1),
        frame: Vec::new(),
        at: 0,
    };
    std::fs::create_dir_all(dir)?;
    let mut rest = index.as_slice();
    while let Some(kind) = rest.first().copied() {
        let size = number(rest, 1)?;
        rest = &rest[9..];
        let mut text = || -> io::Result<String> {
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .ok_or_else(|| bad("its index is damaged"))?;
            let text =
                std::str::from_utf8(&rest[..end]).map_err(|_| bad("its index is damaged"))?;
            rest = &rest[end + 1..];
            Ok(text.to_owned())
        };
        let path: RelPath = text()?.parse().map_err(|_| bad("a path leads out of it"))?;
        let path = path.under(dir);
        match kind {
            b'd' => std::fs::create_dir_all(&path)?,
            b'l' => std::os::unix::fs::symlink(text()?, &path)?,
            b'f' | b'x' => contents.copy(size, &path, kind == b'x')?,
            _ => return Err(bad("its index is damaged")),
        }
    }
    Ok(())
}

fn frame(input: &mut File) -> io::Result<Vec<u8>> {
    let mut head = [0; 8];
    input.read_exact(&mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let packed = u64::from(u32::from_le_bytes([a, b, c, d]));
    let unpacked = u64::from(u32::from_le_bytes([e, f, g, h]));
    if unpacked > FRAME_MAX {
        return Err(bad("a frame is too large"));
    }
    let mut bytes = Vec::new();
    zstd::Decoder::new(input.take(packed))?
        .take(unpacked + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != unpacked {
        return Err(bad("a frame has not the size it should have"));
    }
    Ok(bytes)
}

/// The files' contents, one after the other.
struct Contents {
    input: File,
    left: u64,
    frame: Vec<u8>,
    at: usize,
}

impl Contents {
    fn copy(&mut self, mut size: u64, to: &Path, executable: bool) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if executable { 0o755 } else { 0o644 })
            .open(to)?;
        while size > 0 {
            if self.at == self.frame.len() {
                self.left = self
                    .left
                    .checked_sub(1)
                    .ok_or_else(|| bad("it ends too early"))?;
                self.frame = frame(&mut self.input)?;
                self.at = 0;
                if self.frame.is_empty() {
                    return Err(bad("a frame is empty"));
                }
            }
            let have = self.frame.len() - self.at;
            let len = usize::try_from(size).map_or(have, |size| size.min(have));
            file.write_all(&self.frame[self.at..self.at + len])?;
            self.at += len;
            size -= len as u64;
        }
        Ok(())
    }
}
