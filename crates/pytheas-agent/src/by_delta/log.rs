//! The records of how far a delta has been applied: length, check, payload.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
};

use pytheas_release::{Sha256, delta::Progress};

/// Longest record: head and plan, or what one segment made.
const RECORD_MAX: usize = 64 << 20;

fn check(payload: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&Sha256::of(payload).as_bytes()[..8]);
    check
}

pub(super) fn read_record(log: &mut File) -> Option<Vec<u8>> {
    let mut head = [0; 12];
    log.read_exact(&mut head).ok()?;
    let (len, expected) = head.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let mut payload = Vec::new();
    log.take(len.min(RECORD_MAX) as u64)
        .read_to_end(&mut payload)
        .ok()?;
    (payload.len() == len && check(&payload) == *expected).then_some(payload)
}

/// Writes a record at `at`; says where it ends.
pub(super) fn write_record(log: &mut File, at: u64, payload: &[u8]) -> io::Result<u64> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let record = [&len.to_le_bytes()[..], &check(payload), payload].concat();
    log.seek(SeekFrom::Start(at))?;
    log.write_all(&record)?;
    Ok(at + record.len() as u64)
}

pub(super) fn encode_progress(progress: &Progress) -> Vec<u8> {
    let mut out = Vec::new();
    match &progress.open {
        Some((number, len, sha256)) => {
            out.extend_from_slice(&(*number as u64 + 1).to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(sha256.as_bytes());
        }
        None => out.extend_from_slice(&[0; 48]),
    }
    for sha256 in &progress.finished {
        out.extend_from_slice(sha256.as_bytes());
    }
    out
}

pub(super) fn parse_progress(bytes: &[u8]) -> Option<Progress> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let mut hashes = rest.chunks_exact(32).map(|chunk| {
        let mut hash = [0; 32];
        hash.copy_from_slice(chunk);
        Sha256::from_bytes(hash)
    });
    let half = hashes.next()?;
    let number = u64::from_le_bytes(*number).checked_sub(1);
    let open = number.map(|number| (number as usize, u64::from_le_bytes(*len), half));
    Some(Progress {
        finished: hashes.collect(),
        open,
    })
}
