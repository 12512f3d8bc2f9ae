//! Unpacks segments, each by itself: any number of them at a time, beside who takes what they make.

use std::{collections::BTreeSet, io, sync::Arc};

use pytheas_codec::{
    Damaged, patch,
    text::{self, Kind},
};

use super::{
    DeltaError, Files, REFERENCE_MAX,
    plan::{self, Head, Method, OldPiece, Segment},
    records,
};
use crate::{Entry, Hasher, RelPath, Sha256};

/// What the models of a patch and those of anything else take, in bytes.
const PATCH_MODELS: usize = 2 << 20;
const TEXT_MODELS: usize = 64 << 10;
/// As much of an old file is in memory while it is hashed, in bytes.
const HASHED_AT_ONCE: u64 = 256 << 10;

/// Memory that one segment after the other is unpacked in: what the system has given already costs
/// less than new memory. For one that is not a patch, what patches leave is given back.
#[derive(Debug, Default)]
pub struct Workspace {
    buffer: Vec<u8>,
    tables: patch::Tables,
}

/// What a segment makes.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
}

impl Unpacked {
    /// What it takes now, in bytes of memory: less than it took to unpack it.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

/// What unpacking needs to know: cheap to clone, for a thread to keep.
#[derive(Debug, Clone)]
pub struct Unpacker<'t>(Arc<Known<'t>>);

#[derive(Debug)]
struct Known<'t> {
    head: Head,
    old: Vec<(&'t RelPath, &'t Entry)>,
}

impl<'t> Unpacker<'t> {
    pub(super) fn new(head: Head, old: Vec<(&'t RelPath, &'t Entry)>) -> Self {
        Self(Arc::new(Known { head, old }))
    }

    pub(super) fn head(&self) -> &Head {
        &self.0.head
    }

    /// How long segment `number` (from 0) is, packed, in bytes; nothing when there are fewer.
    pub fn packed_len(&self, number: usize) -> Option<usize> {
        let segment = self.0.head.segments.get(number)?;
        Some(segment.packed_len)
    }

    /// Size and hash of a file of the old tree.
    fn lookup_old(&self, path: &str) -> Option<(u64, Sha256)> {
        let found = self
            .0
            .old
            .binary_search_by(|(other, _)| other.as_str().cmp(path))
            .ok()?;
        match self.0.old[found].1 {
            Entry::File {
                size_bytes, sha256, ..
            } => Some((*size_bytes, *sha256)),
            _ => None,
        }
    }

    /// What segment `number` (from 0) makes: segments need nothing of each other for this, so that
    /// several can be unpacked at a time.
    ///
    /// # Errors
    /// [`DeltaError`].
    pub fn unpack(
        &self,
        number: usize,
        packed: &[u8],
        files: &dyn Files,
        workspace: &mut Workspace,
    ) -> Result<Unpacked, DeltaError> {
        let Some(segment) = self.0.head.segments.get(number) else {
            return Err(DeltaError::Damaged("it has no more segments".into()));
        };
        if packed.len() != segment.packed_len || plan::check(packed) != segment.check {
            let segment = number + 1;
            return Err(DeltaError::DamagedSegment { segment });
        }
        match self.contents(segment, packed, files, workspace) {
            Ok(bytes) => Ok(Unpacked { number, bytes }),
            Err(error @ DeltaError::Damaged(_)) => {
                Err(self.damaged_old(segment.old.iter(), files).unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// What unpacking segment `number` (from 0) takes, in bytes of memory, about.
    pub fn memory(&self, number: usize) -> Option<usize> {
        let segment = self.0.head.segments.get(number)?;
        let made = segment.made_len(&self.0.head.sizes);
        let beside = match segment.method {
            Method::Records => made + TEXT_MODELS,
            // What is new in it, unpacked: seldom more than a few times as long as packed.
            Method::Patch => made.min(segment.packed_len.saturating_mul(4)) + PATCH_MODELS,
            Method::Text | Method::Binary => TEXT_MODELS,
        };
        Some(segment.packed_len + self.known_len(segment) + made + beside)
    }

    /// Gives back what of `workspace` segment `number` (from 0) does not need: what is left is part of
    /// what that takes, so that the memory of those under way stays bounded.
    pub fn fit(&self, number: usize, workspace: &mut Workspace) {
        if let Some(segment) = self.0.head.segments.get(number) {
            self.fit_to(segment, workspace);
        }
    }

    fn fit_to(&self, segment: &Segment, workspace: &mut Workspace) {
        if segment.method != Method::Patch {
            workspace.tables = patch::Tables::default();
        }
        let made = segment.made_len(&self.0.head.sizes);
        workspace.buffer.clear();
        let most = self.known_len(segment) + beside(segment.method, made);
        workspace.buffer.shrink_to(most);
    }

    /// How much a segment looks back at, in bytes; what is too much is refused when it is read.
    fn known_len(&self, segment: &Segment) -> usize {
        let lens = segment
            .old
            .iter()
            .map(|piece| self.old_len(*piece).unwrap_or(0));
        lens.fold(0, usize::saturating_add).min(REFERENCE_MAX)
    }

    /// What a segment makes.
    fn contents(
        &self,
        segment: &Segment,
        packed: &[u8],
        files: &dyn Files,
        workspace: &mut Workspace,
    ) -> Result<Vec<u8>, DeltaError> {
        let made = segment.made_len(&self.0.head.sizes);
        self.fit_to(segment, workspace);
        let mut buffer = std::mem::take(&mut workspace.buffer);
        let known = self.known_len(segment);
        buffer.reserve_exact(known + beside(segment.method, made));
        for piece in &segment.old {
            self.old_piece(*piece, segment.method, files, &mut buffer)?;
            if buffer.len() > REFERENCE_MAX {
                return Err(DeltaError::Damaged(
                    "a segment looks back at more than is allowed".into(),
                ));
            }
        }
        let known = buffer.len();
        let len = made;
        match segment.method {
            Method::Text | Method::Records => text::unpack(packed, &mut buffer, len, Kind::Text),
            Method::Binary => text::unpack(packed, &mut buffer, len, Kind::Binary),
            Method::Patch => {
                let mut out = Vec::new();
                let tables = &mut workspace.tables;
                patch::unpack(packed, &mut buffer, len, &mut out, tables).map_err(damaged)?;
                workspace.buffer = buffer;
                return Ok(out);
            }
        }
        .map_err(damaged)?;
        // What was looked back at is not kept until its turn comes.
        buffer.drain(..known);
        buffer.shrink_to_fit();
        Ok(buffer)
    }

    /// Why what was made is wrong, or `error`: old files are not hashed before they are used, since
    /// the new tree's id proves everything, but they are when it does not come out.
    pub(super) fn explain(&self, error: DeltaError, files: &dyn Files) -> DeltaError {
        if !matches!(error, DeltaError::WrongTree { .. }) {
            return error;
        }
        let segments = self.0.head.segments.iter();
        let damaged = self.damaged_old(segments.flat_map(|segment| &segment.old), files);
        damaged.unwrap_or(error)
    }

    /// The first of the old files that are looked back at whole which is not what its tree says. Each
    /// is read once, piece by piece: a head that was not checked may name any of them, any number of
    /// times.
    fn damaged_old<'p>(
        &self,
        pieces: impl Iterator<Item = &'p OldPiece>,
        files: &dyn Files,
    ) -> Option<DeltaError> {
        let whole: BTreeSet<usize> = pieces
            .filter(|piece| piece.part.is_none())
            .map(|piece| piece.entry)
            .collect();
        whole.into_iter().find_map(|entry| {
            let (path, entry) = self.0.old.get(entry)?;
            let Entry::File {
                size_bytes, sha256, ..
            } = entry
            else {
                return None;
            };
            let found = hash(path, *size_bytes, files).ok()?;
            let path = (*path).clone();
            (found != *sha256).then_some(DeltaError::OldContent { path })
        })
    }

    /// How long an old piece is; nothing when there is no such file.
    pub(super) fn old_len(&self, piece: OldPiece) -> Option<usize> {
        match (piece.part, self.0.old.get(piece.entry)?.1) {
            (Some((_, len)), Entry::File { .. }) => Some(len),
            (None, Entry::File { size_bytes, .. }) => usize::try_from(*size_bytes).ok(),
            _ => None,
        }
    }

    fn old_piece(
        &self,
        piece: OldPiece,
        method: Method,
        files: &dyn Files,
        buffer: &mut Vec<u8>,
    ) -> Result<(), DeltaError> {
        let damaged = || DeltaError::Damaged("a segment looks back at no old file".into());
        let (path, entry) = self.0.old.get(piece.entry).ok_or_else(damaged)?;
        let Entry::File { size_bytes, .. } = entry else {
            return Err(damaged());
        };
        let offset = piece.part.map_or(0, |(offset, _)| offset);
        let len = self.old_len(piece).ok_or_else(damaged)?;
        let fits = offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= *size_bytes);
        if !fits || len > REFERENCE_MAX.saturating_sub(buffer.len()) {
            return Err(damaged());
        }
        let from = buffer.len();
        files
            .read_into(path, offset, len, buffer)
            .map_err(|source| DeltaError::OldFile {
                path: (*path).clone(),
                source,
            })?;
        if method == Method::Records {
            let lookup = |path: &str| self.lookup_old(path);
            if let Some(short) = records::shorten(path, &buffer[from..], &lookup) {
                buffer.truncate(from);
                buffer.extend(short);
            }
        }
        Ok(())
    }
}

/// What is made in the memory of what is looked back at: not by a patch, which only puts there what is
/// new in it.
fn beside(method: Method, made: usize) -> usize {
    match method {
        Method::Patch => 0,
        _ => made,
    }
}

fn hash(path: &RelPath, size_bytes: u64, files: &dyn Files) -> io::Result<Sha256> {
    let mut hasher = Hasher::new();
    let (mut at, mut bytes) = (0, Vec::new());
    while at < size_bytes {
        let len = (size_bytes - at).min(HASHED_AT_ONCE);
        bytes.clear();
        files.read_into(path, at, len as usize, &mut bytes)?;
        hasher.update(&bytes);
        at += len;
    }
    Ok(hasher.finish())
}

fn damaged(error: Damaged) -> DeltaError {
    DeltaError::Damaged(format!("a segment: {error}"))
}
