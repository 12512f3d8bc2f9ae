//! The plan of a delta: its tables, written and read with every number bounded.
//!
//! ```text
//! number   length of the steps; the steps (see `steps`)
//! number   contents that are made; the size of each
//! number   segments
//! each     number          kind
//!          number          old pieces; each: entry (signed, from the one expected) and whether a
//!                          part of it: offset, length
//!          number          new pieces; each: content (signed, from the one expected) and whether a
//!                          part of it: offset, length; in records: its short length
//!          number          packed size
//!          8 bytes         the first of the SHA-256 of the packed bytes
//! ```

use std::io::Read;

use pytheas_codec::{
    Damaged, number,
    text::{self, Kind},
};

use super::{MAGIC, PLAN_MAX, REFERENCE_MAX, SEGMENT_MAX, apply::DeltaError};
use crate::{Sha256, TreeId};

/// Bytes before the packed plan.
const HEAD_LEN: usize = 88;
/// Most contents, and most pieces of all segments together.
pub(super) const COUNT_MAX: usize = 1 << 18;
/// Most segments.
const SEGMENTS_MAX: usize = 1 << 16;
/// Longest packed segment, in bytes.
const PACKED_MAX: usize = SEGMENT_MAX + (SEGMENT_MAX >> 3) + 4096;

/// How a segment is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Text,
    Binary,
    Patch,
    Records,
}

const METHODS: [Method; 4] = [Method::Text, Method::Binary, Method::Patch, Method::Records];

/// A piece of an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldPiece {
    /// Number of the entry in the old tree, from 0.
    pub(super) entry: usize,
    /// Offset and length; without: all of it.
    pub(super) part: Option<(u64, usize)>,
}

/// A piece of a new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewPiece {
    /// Number of the content.
    pub(super) content: usize,
    /// Offset and length; without: all of it.
    pub(super) part: Option<(u64, usize)>,
    /// Length of a shortened record.
    pub(super) short: usize,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) method: Method,
    pub(super) old: Vec<OldPiece>,
    pub(super) new: Vec<NewPiece>,
    pub(super) packed_len: usize,
    pub(super) check: [u8; 8],
}

impl Segment {
    /// How many bytes it unpacks to; at most [`SEGMENT_MAX`].
    pub(super) fn made_len(&self, sizes: &[u64]) -> usize {
        let len = |piece: &NewPiece| match (self.method, piece.part) {
            (Method::Records, _) => piece.short,
            (_, Some((_, len))) => len,
            (_, None) => sizes[piece.content] as usize,
        };
        self.new.iter().map(len).sum()
    }
}

/// Head and plan of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub(super) old: TreeId,
    pub(super) new: TreeId,
    pub(super) steps: Vec<u8>,
    pub(super) sizes: Vec<u64>,
    pub(super) segments: Vec<Segment>,
    /// As it was read.
    bytes: Vec<u8>,
}

/// The check of packed bytes.
pub(super) fn check(packed: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&Sha256::of(packed).as_bytes()[..8]);
    check
}

impl Head {
    /// The tree it is for.
    pub fn old(&self) -> TreeId {
        self.old
    }

    /// The tree it makes.
    pub fn new_id(&self) -> TreeId {
        self.new
    }

    /// Number of contents that it makes.
    pub fn contents(&self) -> usize {
        self.sizes.len()
    }

    /// Their sizes together, in bytes.
    pub fn content_bytes(&self) -> u64 {
        self.sizes
            .iter()
            .fold(0, |sum, size| sum.saturating_add(*size))
    }

    /// How long the whole delta is, in bytes.
    pub fn delta_bytes(&self) -> u64 {
        let packed = self
            .segments
            .iter()
            .map(|segment| segment.packed_len as u64);
        self.bytes.len() as u64 + packed.sum::<u64>()
    }

    /// The bytes it was read from: what has to be kept to go on after a break.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads head and plan.
    ///
    /// # Errors
    /// [`DeltaError`] when they are cut short or damaged.
    pub fn read(reader: &mut impl Read) -> Result<Self, DeltaError> {
        let mut bytes = vec![0; HEAD_LEN];
        reader.read_exact(&mut bytes).map_err(DeltaError::Read)?;
        if bytes[..8] != MAGIC[..] {
            return Err(DeltaError::NotADelta);
        }
        let id = |at: usize| {
            let mut id = [0; 32];
            id.copy_from_slice(&bytes[at..at + 32]);
            TreeId(Sha256::from_bytes(id))
        };
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        let (old, new, len, packed_len) = (id(8), id(40), word(72), word(76));
        if packed_len > PLAN_MAX || len > PLAN_MAX {
            return Err(DeltaError::Damaged(
                "its plan is larger than allowed".into(),
            ));
        }
        read_more(reader, packed_len, &mut bytes)?;
        let packed = &bytes[HEAD_LEN..];
        if bytes[80..88] != check(packed) {
            return Err(DeltaError::Damaged(
                "its plan is not the one it was made with".into(),
            ));
        }
        let mut plan = Vec::new();
        text::unpack(packed, &mut plan, len, Kind::Binary).map_err(damaged)?;
        let (steps, sizes, segments) = parse(&plan).map_err(damaged)?;
        Ok(Self {
            old,
            new,
            steps,
            sizes,
            segments,
            bytes,
        })
    }

    /// Head and plan as they begin a delta.
    #[cfg(any(feature = "make-deltas", test))]
    pub(super) fn encode(old: TreeId, new: TreeId, plan: &[u8]) -> std::io::Result<Vec<u8>> {
        let packed = text::pack(plan, &[], Kind::Binary)?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(old.0.as_bytes());
        out.extend_from_slice(new.0.as_bytes());
        for len in [plan.len(), packed.len()] {
            let len = u32::try_from(len).map_err(std::io::Error::other)?;
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend_from_slice(&check(&packed));
        out.extend(packed);
        Ok(out)
    }
}

fn damaged(error: Damaged) -> DeltaError {
    DeltaError::Damaged(format!("its plan: {error}"))
}

/// Appends `len` bytes; memory grows with what really comes, not with what is claimed.
pub(super) fn read_more(
    reader: &mut impl Read,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    let before = out.len();
    out.reserve(len.min(1 << 20));
    reader
        .take(len as u64)
        .read_to_end(out)
        .map_err(DeltaError::Read)?;
    if out.len() - before == len {
        Ok(())
    } else {
        Err(DeltaError::Read(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

/// The plan's tables.
#[cfg(any(feature = "make-deltas", test))]
pub(super) fn encode(steps: &[u8], sizes: &[u64], segments: &[Segment]) -> Vec<u8> {
    let mut out = Vec::new();
    number::put(&mut out, steps.len() as u64);
    out.extend_from_slice(steps);
    number::put(&mut out, sizes.len() as u64);
    for size in sizes {
        number::put(&mut out, *size);
    }
    number::put(&mut out, segments.len() as u64);
    let (mut expected_old, mut expected_new) = (0, 0);
    for segment in segments {
        number::put(&mut out, segment.method as u64);
        number::put(&mut out, segment.old.len() as u64);
        for piece in &segment.old {
            put_piece(&mut out, piece.entry, &mut expected_old, piece.part);
        }
        number::put(&mut out, segment.new.len() as u64);
        for piece in &segment.new {
            put_piece(&mut out, piece.content, &mut expected_new, piece.part);
            if segment.method == Method::Records {
                number::put(&mut out, piece.short as u64);
            }
        }
        number::put(&mut out, segment.packed_len as u64);
        out.extend_from_slice(&segment.check);
    }
    out
}

#[cfg(any(feature = "make-deltas", test))]
fn put_piece(out: &mut Vec<u8>, number: usize, expected: &mut i64, part: Option<(u64, usize)>) {
    let step = number as i64 - *expected;
    number::put_signed(out, step << 1 | i64::from(part.is_some()));
    *expected = number as i64 + 1;
    if let Some((offset, len)) = part {
        number::put(out, offset);
        number::put(out, len as u64);
    }
}

fn get_piece(
    bytes: &mut &[u8],
    expected: &mut i64,
    max: usize,
) -> Result<(usize, Option<(u64, usize)>), Damaged> {
    let step = number::get_signed(bytes)?;
    let number = expected
        .checked_add(step >> 1)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number <= COUNT_MAX)
        .ok_or(Damaged("a piece of no file"))?;
    *expected = number as i64 + 1;
    let part = match step & 1 {
        0 => None,
        _ => Some((number::get(bytes)?, number::get_up_to(bytes, max)?)),
    };
    Ok((number, part))
}

type Tables = (Vec<u8>, Vec<u64>, Vec<Segment>);

/// Reads the plan's tables.
///
/// # Errors
/// [`Damaged`]: numbers out of bounds, contents that are not made once from front to back.
pub(super) fn parse(mut plan: &[u8]) -> Result<Tables, Damaged> {
    let bytes = &mut plan;
    let len = number::get_up_to(bytes, bytes.len())?;
    let (steps, rest) = bytes
        .split_at_checked(len)
        .ok_or(Damaged("it is cut short"))?;
    *bytes = rest;
    let mut sizes = Vec::new();
    for _ in 0..number::get_up_to(bytes, COUNT_MAX)? {
        sizes.push(number::get(bytes)?);
    }
    let mut segments = Vec::new();
    let (mut expected_old, mut expected_new) = (0, 0);
    let mut made = vec![false; sizes.len()];
    let mut open: Option<(usize, u64)> = None;
    let mut pieces_left = COUNT_MAX;
    for _ in 0..number::get_up_to(bytes, SEGMENTS_MAX)? {
        let method = METHODS[number::get_up_to(bytes, METHODS.len() - 1)?];
        let mut old = Vec::new();
        let count = number::get_up_to(bytes, pieces_left)?;
        pieces_left -= count;
        for _ in 0..count {
            let (entry, part) = get_piece(bytes, &mut expected_old, REFERENCE_MAX)?;
            old.push(OldPiece { entry, part });
        }
        let (mut new, mut left, mut short_left) = (Vec::new(), SEGMENT_MAX, SEGMENT_MAX);
        let count = number::get_up_to(bytes, pieces_left)?;
        pieces_left -= count;
        for _ in 0..count {
            let (content, part) = get_piece(bytes, &mut expected_new, SEGMENT_MAX)?;
            let size = *sizes.get(content).ok_or(Damaged("a piece of no content"))?;
            let (offset, len) = part.unwrap_or((0, usize::try_from(size).unwrap_or(usize::MAX)));
            left = left
                .checked_sub(len)
                .ok_or(Damaged("a segment makes more than is allowed"))?;
            let begins = match open.take() {
                Some((number, done)) => number == content && done == offset && len > 0,
                None => offset == 0 && !made[content],
            };
            let end = offset.saturating_add(len as u64);
            if !begins || end > size || method == Method::Records && part.is_some() {
                return Err(Damaged("a content is not made from front to back"));
            }
            if end < size {
                open = Some((content, end));
            } else {
                made[content] = true;
            }
            let short = match method {
                Method::Records => number::get_up_to(bytes, short_left)?,
                _ => 0,
            };
            short_left -= short;
            new.push(NewPiece {
                content,
                part,
                short,
            });
        }
        if method == Method::Patch && (old.len() != 1 || new.len() != 1) {
            return Err(Damaged("a patch is not of one piece"));
        }
        let packed_len = number::get_up_to(bytes, PACKED_MAX)?;
        let (check, rest) = bytes
            .split_first_chunk()
            .ok_or(Damaged("a segment has no check"))?;
        *bytes = rest;
        segments.push(Segment {
            method,
            old,
            new,
            packed_len,
            check: *check,
        });
    }
    if open.is_some() || made.contains(&false) || !bytes.is_empty() {
        return Err(Damaged("it does not make every content"));
    }
    Ok((steps.to_vec(), sizes, segments))
}
