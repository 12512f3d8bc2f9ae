//! Makes a delta from two trees, on every core.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use pytheas_codec::{
    elf::Layout,
    patch,
    text::{self, Kind},
};

use super::{
    Files, PLAN_MAX, REFERENCE_MAX,
    apply::Applier,
    group::{self, Job},
    missing,
    pair::Pairs,
    plan::{self, COUNT_MAX, Head, Method, OldPiece, Segment},
    records, steps,
};
use crate::{Entry, RelPath, Sha256, Tree};

/// Longest program whose headers are read to find its addresses, in bytes.
const PROGRAM_MAX: u64 = 256 << 20;

/// A delta that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A file of one of the trees cannot be read.
    #[error("cannot read `{path}` of the {which} tree")]
    Read {
        /// The file.
        path: RelPath,
        /// `old` or `new`.
        which: &'static str,
        /// What the reader says.
        source: io::Error,
    },
    /// The packer refuses.
    #[error("cannot pack a segment of the delta")]
    Pack(#[source] io::Error),
    /// More entries than the format holds.
    #[error("the trees are too large for one delta: {0}")]
    TooLarge(String),
}

/// What a delta is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Head and plan, in bytes.
    pub plan_bytes: usize,
    /// The segments in their order.
    pub parts: Vec<Part>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `text`, `binary`, `patch` or `records`.
    pub method: &'static str,
    /// The first path of the first content in it.
    pub path: RelPath,
    /// Number of contents, whole or in part.
    pub contents: usize,
    /// Bytes that it makes.
    pub size_bytes: usize,
    /// Bytes that it takes.
    pub packed_bytes: usize,
}

/// The delta that turns `old` into `new` (format 2).
///
/// # Errors
/// [`MakeError`] when a file cannot be read.
pub fn make(
    old: &Tree,
    new: &Tree,
    old_files: &dyn Files,
    new_files: &dyn Files,
) -> Result<Vec<u8>, MakeError> {
    make_with_summary(old, new, old_files, new_files).map(|(delta, _)| delta)
}

/// The same, and what it is made of.
///
/// # Errors
/// [`MakeError`] when a file cannot be read.
pub fn make_with_summary(
    old: &Tree,
    new: &Tree,
    old_files: &dyn Files,
    new_files: &dyn Files,
) -> Result<(Vec<u8>, Summary), MakeError> {
    let missing = missing(old, new);
    if missing.len() > COUNT_MAX / 8 {
        let count = missing.len();
        return Err(MakeError::TooLarge(format!("{count} contents are new")));
    }
    let pairs = Pairs::new(old, old_files);
    let jobs = group::jobs(&missing, &pairs, new_files)?;
    let maker = Maker {
        missing: &missing,
        pairs: &pairs,
        old_files,
        new_files,
        old_known: known(old),
        new_known: known(new),
    };
    // The longest first, so that no core is left with one of them at the end.
    let mut order: Vec<&Job> = jobs.iter().collect();
    order.sort_by_key(|job| std::cmp::Reverse(job.len));
    let mut packed: Vec<(usize, (Segment, Vec<u8>))> = in_parallel(&order, |job| maker.pack(job))?
        .into_iter()
        .zip(&order)
        .map(|(done, job)| (position(&jobs, job), done))
        .collect();
    packed.sort_by_key(|(at, _)| *at);
    let packed: Vec<(Segment, Vec<u8>)> = packed.into_iter().map(|(_, done)| done).collect();

    let segments: Vec<Segment> = packed.iter().map(|(segment, _)| segment.clone()).collect();
    let sizes: Vec<u64> = missing.iter().map(|(_, size, _)| *size).collect();
    let plan = plan::encode(&steps::encode(old, new), &sizes, &segments);
    if plan.len() > PLAN_MAX {
        let len = plan.len();
        return Err(MakeError::TooLarge(format!("its plan has {len} bytes")));
    }
    let mut out = Head::encode(old.id(), new.id(), &plan).map_err(MakeError::Pack)?;
    // What a device would refuse is not handed out.
    Head::read(&mut &out[..])
        .and_then(|head| Applier::new(head, old))
        .map_err(|error| MakeError::TooLarge(error.to_string()))?;
    let summary = Summary {
        plan_bytes: out.len(),
        parts: packed
            .iter()
            .map(|(segment, bytes)| maker.part(segment, bytes.len()))
            .collect(),
    };
    for (_, bytes) in packed {
        out.extend(bytes);
    }
    Ok((out, summary))
}

fn position(jobs: &[Job], job: &Job) -> usize {
    jobs.iter()
        .position(|other| std::ptr::eq(other, job))
        .unwrap_or(usize::MAX)
}

fn known(tree: &Tree) -> BTreeMap<&str, (u64, Sha256)> {
    tree.files()
        .map(|(path, size, sha256)| (path.as_str(), (size, sha256)))
        .collect()
}

/// Runs `work` for each of `items` on every core; results in their order.
pub(super) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T, MakeError> + Sync,
) -> Result<Vec<T>, MakeError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let failure = Mutex::new(None);
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            match work(item) {
                Ok(result) => done
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .push((at, result)),
                Err(error) => {
                    failure
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8)
            .min(items.len());
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Reads a piece of a new file.
pub(super) fn read_new(
    files: &dyn Files,
    path: &RelPath,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, MakeError> {
    files
        .read(path, offset, len)
        .map_err(|source| MakeError::Read {
            path: path.clone(),
            which: "new",
            source,
        })
}

struct Maker<'a> {
    missing: &'a [(RelPath, u64, Sha256)],
    pairs: &'a Pairs<'a>,
    old_files: &'a dyn Files,
    new_files: &'a dyn Files,
    old_known: BTreeMap<&'a str, (u64, Sha256)>,
    new_known: BTreeMap<&'a str, (u64, Sha256)>,
}

impl Maker<'_> {
    fn pack(&self, job: &Job) -> Result<(Segment, Vec<u8>), MakeError> {
        let mut segment = Segment {
            method: job.method,
            old: job.old.clone(),
            new: job.new.clone(),
            packed_len: 0,
            check: [0; 8],
        };
        let packed = match job.method {
            Method::Text => self.pack_text(&segment, Kind::Text)?,
            Method::Binary => self.pack_text(&segment, Kind::Binary)?,
            Method::Records => self.pack_records(&mut segment)?,
            Method::Patch => {
                let whole = segment.clone();
                segment.old.truncate(1);
                match self.pack_patch(&segment)? {
                    Some(patched) if patched.len() < job.len / 6 => patched,
                    // What is hardly alike is no patch.
                    patched => {
                        let plain = self.pack_text(&whole, Kind::Binary)?;
                        match patched {
                            Some(patched) if patched.len() <= plain.len() => patched,
                            _ => {
                                segment = whole;
                                segment.method = Method::Binary;
                                plain
                            }
                        }
                    }
                }
            }
        };
        segment.packed_len = packed.len();
        segment.check = plan::check(&packed);
        Ok((segment, packed))
    }

    fn old_bytes(&self, segment: &Segment) -> Result<Vec<u8>, MakeError> {
        let mut bytes = Vec::new();
        for piece in &segment.old {
            let read = self.old_piece(*piece)?;
            match segment.method {
                Method::Records => {
                    let path = self.pairs.entry(piece.entry).0;
                    let lookup = |path: &str| self.old_known.get(path).copied();
                    bytes.extend(records::shorten(path, &read, &lookup).unwrap_or(read));
                }
                _ => bytes.extend(read),
            }
        }
        Ok(bytes)
    }

    fn old_piece(&self, piece: OldPiece) -> Result<Vec<u8>, MakeError> {
        let (path, entry) = self.pairs.entry(piece.entry);
        let size = match entry {
            Entry::File { size_bytes, .. } => *size_bytes as usize,
            _ => 0,
        };
        let (offset, len) = piece.part.unwrap_or((0, size));
        self.old_files
            .read(path, offset, len)
            .map_err(|source| MakeError::Read {
                path: path.clone(),
                which: "old",
                source,
            })
    }

    fn new_bytes(&self, segment: &Segment) -> Result<Vec<u8>, MakeError> {
        let mut bytes = Vec::new();
        for piece in &segment.new {
            let (path, size, _) = &self.missing[piece.content];
            let (offset, len) = piece.part.unwrap_or((0, *size as usize));
            bytes.extend(read_new(self.new_files, path, offset, len)?);
        }
        Ok(bytes)
    }

    fn pack_text(&self, segment: &Segment, kind: Kind) -> Result<Vec<u8>, MakeError> {
        let (old, new) = (self.old_bytes(segment)?, self.new_bytes(segment)?);
        text::pack(&new, &old, kind).map_err(MakeError::Pack)
    }

    fn pack_records(&self, segment: &mut Segment) -> Result<Vec<u8>, MakeError> {
        let mut new = Vec::new();
        let lookup = |path: &str| self.new_known.get(path).copied();
        let mut all = true;
        let mut shorts = Vec::new();
        for piece in &segment.new {
            let (path, size, _) = &self.missing[piece.content];
            let text = read_new(self.new_files, path, 0, *size as usize)?;
            // A hash of a record that comes later is not known when it is needed.
            let later = |name: &str| {
                let record = name
                    .parse::<RelPath>()
                    .is_ok_and(|path| records::is_record(&path));
                if record { None } else { lookup(name) }
            };
            let short = records::shorten(path, &text, &later);
            let back = short
                .as_ref()
                .and_then(|short| records::restore(path, short, &later, text.len()));
            all &= back.as_deref() == Some(&text[..]);
            let short = short.unwrap_or(text);
            shorts.push(short.len());
            new.extend(short);
        }
        if !all {
            segment.method = Method::Text;
            return self.pack_text(segment, Kind::Text);
        }
        for (piece, short) in segment.new.iter_mut().zip(shorts) {
            piece.short = short;
        }
        let old = self.old_bytes(segment)?;
        text::pack(&new, &old, Kind::Text).map_err(MakeError::Pack)
    }

    fn pack_patch(&self, segment: &Segment) -> Result<Option<Vec<u8>>, MakeError> {
        let (old, new) = (self.old_bytes(segment)?, self.new_bytes(segment)?);
        let (old_piece, new_piece) = (segment.old[0], segment.new[0]);
        let (new_path, new_size, _) = &self.missing[new_piece.content];
        let old_size = match self.pairs.entry(old_piece.entry).1 {
            Entry::File { size_bytes, .. } => *size_bytes,
            _ => 0,
        };
        let elf = |bytes: &[u8], part: Option<(u64, usize)>| {
            part.is_some_and(|(offset, _)| offset > 0) || bytes.starts_with(b"\x7fELF")
        };
        let program = elf(&old, old_piece.part)
            && elf(&new, new_piece.part)
            && old_size.max(*new_size) <= PROGRAM_MAX;
        let layout = match (program, old_piece.part, new_piece.part) {
            (false, ..) => Layout::default(),
            (true, None, None) => Layout::of(&old, &new),
            (true, ..) => {
                let whole_old = self.old_piece(OldPiece {
                    part: None,
                    ..old_piece
                })?;
                let whole_new = read_new(self.new_files, new_path, 0, *new_size as usize)?;
                Layout::of(&whole_old, &whole_new)
            }
        };
        let from = |part: Option<(u64, usize)>| part.map_or(0, |(offset, _)| offset as usize);
        let packed = patch::pack(
            &old,
            &new,
            &layout,
            from(old_piece.part),
            from(new_piece.part),
        )
        .map_err(MakeError::Pack)?;
        // Undone before it is believed: one with more copies than allowed would be refused.
        let (mut buffer, mut made) = (old, Vec::new());
        let mut tables = patch::Tables::default();
        let undone = patch::unpack(&packed, &mut buffer, new.len(), &mut made, &mut tables);
        Ok((undone.is_ok() && made == new).then_some(packed))
    }

    fn part(&self, segment: &Segment, packed_bytes: usize) -> Part {
        let size = |piece: &plan::NewPiece| match piece.part {
            Some((_, len)) => len,
            None => self.missing[piece.content].1 as usize,
        };
        Part {
            method: match segment.method {
                Method::Text => "text",
                Method::Binary => "binary",
                Method::Patch => "patch",
                Method::Records => "records",
            },
            path: self.missing[segment.new[0].content].0.clone(),
            contents: segment.new.len(),
            size_bytes: segment.new.iter().map(size).sum(),
            packed_bytes,
        }
    }
}

const _: () = assert!(REFERENCE_MAX < u32::MAX as usize);
