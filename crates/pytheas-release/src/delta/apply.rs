//! Reads a delta segment by segment and hands on what it makes.

use std::io::{self, Read};

use pytheas_codec::Damaged;

use super::{
    Files, MadeSink, REFERENCE_MAX,
    plan::{self, Head, Method},
    records,
    steps::{self, Content, NewEntry, NewTree},
    unpack::{Unpacked, Unpacker, Workspace},
};
use crate::{Entry, Hasher, RelPath, Sha256, Tree, TreeError, TreeId};

/// Old bytes that may be read for each byte that is made, and those that may be read at any rate.
const READ_PER_MADE: u64 = 64;
const READ_MIN: u64 = 16 * REFERENCE_MAX as u64;

/// A delta that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The stream ends early or cannot be read.
    #[error("cannot read the delta")]
    Read(#[source] io::Error),
    /// Not a delta of format 2.
    #[error("not a delta of format 2 (it begins with other bytes)")]
    NotADelta,
    /// Damaged or made by a faulty program.
    #[error("the delta is damaged: {0}")]
    Damaged(String),
    /// A segment is not the one that the plan was made with: damaged on its way, mostly.
    #[error("the delta is damaged: segment {segment} is not the one it was made with")]
    DamagedSegment {
        /// Its number, from 1.
        segment: usize,
    },
    /// For another tree than the device has.
    #[error("the delta is for tree {wanted}, not for tree {actual}")]
    OtherTree {
        /// The tree it was made for.
        wanted: TreeId,
        /// The tree that is there.
        actual: TreeId,
    },
    /// What comes out is not the tree it promises.
    #[error("the delta makes tree {made} and promises tree {promised}")]
    WrongTree {
        /// What comes out.
        made: TreeId,
        /// What its head says.
        promised: TreeId,
    },
    /// An entry is no entry of a tree.
    #[error("the delta makes no valid tree")]
    Tree(#[from] TreeError),
    /// An old file cannot be read.
    #[error("cannot read `{path}` of the running release")]
    OldFile {
        /// The file.
        path: RelPath,
        /// What the system says.
        source: io::Error,
    },
    /// An old file is not what its tree says.
    #[error("`{path}` of the running release is damaged")]
    OldContent {
        /// The file.
        path: RelPath,
    },
    /// What was made cannot be written.
    #[error("cannot write content number {number} of the delta")]
    Write {
        /// Which of the contents that the delta makes.
        number: usize,
        /// What the system says.
        source: io::Error,
    },
}

/// A delta being applied.
#[derive(Debug)]
pub struct Applier<'t> {
    unpacker: Unpacker<'t>,
    new: NewTree,
    /// The first path of each content.
    paths: Vec<RelPath>,
    made: Vec<Option<Sha256>>,
    /// Number and place of the segment that comes next.
    next: usize,
    place: u64,
    /// The content of which a part is made: its number, its length so far.
    open: Option<(usize, u64, Hasher)>,
    /// What [`Self::step`] unpacks in.
    workspace: Workspace,
}

/// How far one segment has brought it: to be kept by who wants to go on here after a break.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The hashes of the contents that it completed, in their order.
    pub finished: Vec<Sha256>,
    /// The content that it left half made: its number, the bytes there are, their hash.
    pub open: Option<(usize, u64, Sha256)>,
}

impl<'t> Applier<'t> {
    /// Gets ready to make the new tree of `old`.
    ///
    /// # Errors
    /// [`DeltaError`] when `old` is another tree than it was made for, or the plan does not fit.
    pub fn new(head: Head, old: &'t Tree) -> Result<Self, DeltaError> {
        let (wanted, actual) = (head.old, old.id());
        if actual != wanted {
            return Err(DeltaError::OtherTree { wanted, actual });
        }
        let new = steps::decode(&head.steps, old).map_err(plan_damaged)?;
        if new.made != head.sizes.len() {
            return Err(DeltaError::Damaged(
                "its plan makes other contents than its tree has".into(),
            ));
        }
        let mut paths: Vec<Option<RelPath>> = vec![None; head.sizes.len()];
        for (path, entry) in &new.entries {
            if let NewEntry::File {
                content: Content::Made(number),
                ..
            } = entry
            {
                paths[*number].get_or_insert_with(|| path.clone());
            }
        }
        let applier = Self {
            made: vec![None; head.sizes.len()],
            place: head.as_bytes().len() as u64,
            paths: paths.into_iter().flatten().collect(),
            unpacker: Unpacker::new(head, old.iter().collect()),
            new,
            next: 0,
            open: None,
            workspace: Workspace::default(),
        };
        applier.check_work()?;
        Ok(applier)
    }

    /// Refuses a delta that has much more read than it makes: it would keep the device busy for
    /// nothing.
    fn check_work(&self) -> Result<(), DeltaError> {
        let pieces = self.head().segments.iter().flat_map(|segment| &segment.old);
        let read = pieces.fold(0_u64, |sum, piece| {
            sum.saturating_add(self.unpacker.old_len(*piece).unwrap_or(0) as u64)
        });
        let made = self.head().content_bytes();
        if read > made.saturating_mul(READ_PER_MADE).saturating_add(READ_MIN) {
            return Err(DeltaError::Damaged(format!(
                "it reads {read} bytes of old files to make {made}"
            )));
        }
        Ok(())
    }

    /// Size of the content with this number, in bytes.
    pub fn size_bytes(&self, number: usize) -> Option<u64> {
        self.head().sizes.get(number).copied()
    }

    /// What the delta says about itself.
    pub fn head(&self) -> &Head {
        self.unpacker.head()
    }

    /// What unpacks its segments, in as many threads as one likes.
    pub fn unpacker(&self) -> Unpacker<'t> {
        self.unpacker.clone()
    }

    /// Number of the segment that comes next, from 0.
    pub fn next_segment(&self) -> usize {
        self.next
    }

    /// Where in the delta the next segment begins; nothing when all are done.
    pub fn place(&self) -> Option<u64> {
        (self.next < self.head().segments.len()).then_some(self.place)
    }

    /// Takes it that the next segment was applied before and came to `progress`. `prefix` has
    /// hashed the half-made content that it left, if any. Says whether that fits; if not, the
    /// segment is still the next one.
    pub fn skip(&mut self, progress: &Progress, prefix: Option<Hasher>) -> bool {
        let unpacker = self.unpacker();
        let head = unpacker.head();
        let Some(segment) = head.segments.get(self.next) else {
            return false;
        };
        let mut finished = progress.finished.iter();
        let mut results = Vec::new();
        let mut open = None;
        for piece in &segment.new {
            let (from, len) = piece
                .part
                .unwrap_or((0, head.sizes[piece.content] as usize));
            let end = from + len as u64;
            if end == head.sizes[piece.content] {
                let Some(sha256) = finished.next() else {
                    return false;
                };
                results.push((piece.content, *sha256));
            } else {
                open = Some((piece.content, end));
            }
        }
        let hashed = match (open, &progress.open, prefix) {
            (None, None, _) => None,
            (Some((number, end)), Some((kept, there, sha256)), Some(prefix))
                if number == *kept && end == *there && prefix.clone().finish() == *sha256 =>
            {
                Some((number, end, prefix))
            }
            _ => return false,
        };
        if finished.next().is_some() {
            return false;
        }
        for (content, sha256) in results {
            self.made[content] = Some(sha256);
        }
        self.open = hashed;
        self.place += segment.packed_len as u64;
        self.next += 1;
        true
    }

    /// Applies the next segment, given as it is in the delta.
    ///
    /// # Errors
    /// [`DeltaError`]; the segment is then still the next one, and the content that was half made
    /// when it began is so still.
    pub fn step(
        &mut self,
        packed: &[u8],
        files: &dyn Files,
        sink: &mut dyn MadeSink,
    ) -> Result<Progress, DeltaError> {
        let unpacked = (self.unpacker).unpack(self.next, packed, files, &mut self.workspace)?;
        self.take(unpacked, sink)
    }

    /// Hands on what the next segment makes, unpacked before.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn take(
        &mut self,
        unpacked: Unpacked,
        sink: &mut dyn MadeSink,
    ) -> Result<Progress, DeltaError> {
        let unpacker = self.unpacker();
        let head = unpacker.head();
        let segment = match head.segments.get(self.next) {
            Some(segment) if unpacked.number == self.next => segment,
            _ => return Err(DeltaError::Damaged("that is not its next segment".into())),
        };
        let contents = unpacked.bytes;
        let mut progress = Progress::default();
        let mut open = self.open.clone();
        let mut at = 0;
        for piece in &segment.new {
            let number = piece.content;
            let size = head.sizes[number];
            let (from, len) = piece.part.unwrap_or((0, size as usize));
            let restored;
            let bytes = if segment.method == Method::Records {
                let short = part_of(&contents, at, piece.short)?;
                at += piece.short;
                let lookup = |path: &str| self.lookup(path);
                restored = records::restore(&self.paths[number], short, &lookup, len)
                    .ok_or_else(|| DeltaError::Damaged("a record is no record".into()))?;
                &restored[..]
            } else {
                let bytes = part_of(&contents, at, len)?;
                at += len;
                bytes
            };
            let write = |source| DeltaError::Write { number, source };
            let mut hasher = match open.take() {
                Some((_, _, hasher)) => hasher,
                None => Hasher::new(),
            };
            sink.begin(number, from).map_err(write)?;
            hasher.update(bytes);
            sink.write(bytes).map_err(write)?;
            let end = from + len as u64;
            if end == size {
                let sha256 = hasher.finish();
                sink.finish(sha256).map_err(write)?;
                self.made[number] = Some(sha256);
                progress.finished.push(sha256);
            } else {
                progress.open = Some((number, end, hasher.clone().finish()));
                open = Some((number, end, hasher));
            }
        }
        self.open = open;
        self.place += segment.packed_len as u64;
        self.next += 1;
        Ok(progress)
    }

    /// The new tree, when all segments are done; `files` are those of the old one.
    ///
    /// # Errors
    /// [`DeltaError::OldContent`] or [`DeltaError::WrongTree`] when what was made is not what the
    /// head promises.
    pub fn finish(self, files: &dyn Files) -> Result<Tree, DeltaError> {
        let unpacker = self.unpacker();
        self.tree().map_err(|error| unpacker.explain(error, files))
    }

    fn tree(self) -> Result<Tree, DeltaError> {
        let head = self.unpacker.head();
        let promised = head.new;
        let mut entries = Vec::with_capacity(self.new.entries.len());
        for (path, entry) in self.new.entries {
            let entry = match entry {
                NewEntry::Symlink { target } => Entry::Symlink { target },
                NewEntry::Directory => Entry::Directory,
                NewEntry::File {
                    executable,
                    content,
                } => {
                    let (size_bytes, sha256) = match content {
                        Content::Known { size_bytes, sha256 } => (size_bytes, sha256),
                        Content::Made(number) => {
                            let unfinished =
                                || DeltaError::Damaged("not all of it was applied".into());
                            let sha256 = self.made[number].ok_or_else(unfinished)?;
                            (head.sizes[number], sha256)
                        }
                    };
                    Entry::File {
                        size_bytes,
                        sha256,
                        executable,
                    }
                }
            };
            entries.push((path, entry));
        }
        // The id first: no tree is put together that is not the promised one.
        let made = Tree::id_of(entries.iter().map(|(path, entry)| (path, entry)));
        if made != promised {
            return Err(DeltaError::WrongTree { made, promised });
        }
        let mut tree = Tree::default();
        for (path, entry) in entries {
            tree.insert(path, entry)?;
        }
        Ok(tree)
    }

    /// Size and hash of a file of the new tree, as far as they are known.
    fn lookup(&self, path: &str) -> Option<(u64, Sha256)> {
        let found = self
            .new
            .entries
            .binary_search_by(|(other, _)| other.as_str().cmp(path))
            .ok()?;
        match &self.new.entries[found].1 {
            NewEntry::File { content, .. } => match content {
                Content::Known { size_bytes, sha256 } => Some((*size_bytes, *sha256)),
                Content::Made(number) => Some((self.head().sizes[*number], self.made[*number]?)),
            },
            _ => None,
        }
    }
}

fn part_of(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], DeltaError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.get(..len))
        .ok_or_else(|| DeltaError::Damaged("a segment makes too little".into()))
}

fn plan_damaged(error: Damaged) -> DeltaError {
    DeltaError::Damaged(format!("its plan: {error}"))
}

/// A delta that is read from beginning to end.
#[derive(Debug)]
pub struct Delta<R> {
    head: Head,
    rest: R,
}

impl<R: Read> Delta<R> {
    /// Reads head and plan.
    ///
    /// # Errors
    /// [`DeltaError`] when they are cut short or damaged.
    pub fn open(mut reader: R) -> Result<Self, DeltaError> {
        let head = Head::read(&mut reader)?;
        Ok(Self { head, rest: reader })
    }

    /// What it says about itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Makes every content that `old` lacks and gives it to `sink`; returns the new tree.
    ///
    /// # Errors
    /// [`DeltaError`]; what `sink` has got is then worth nothing but what its hashes say.
    pub fn apply(
        mut self,
        old: &Tree,
        files: &dyn Files,
        sink: &mut dyn MadeSink,
    ) -> Result<Tree, DeltaError> {
        let mut applier = Applier::new(self.head, old)?;
        while applier.place().is_some() {
            let mut packed = Vec::new();
            let len = applier.unpacker.packed_len(applier.next).unwrap_or(0);
            plan::read_more(&mut self.rest, len, &mut packed)?;
            applier.step(&packed, files, sink)?;
        }
        let mut rest = [0];
        if self.rest.read(&mut rest).map_err(DeltaError::Read)? != 0 {
            return Err(DeltaError::Damaged("it goes on after its end".into()));
        }
        applier.finish(files)
    }
}
