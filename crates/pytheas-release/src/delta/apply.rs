//! Reads a delta as it comes in and hands on what it makes, each content verified.

use std::io::{self, Read};

use zstd::zstd_safe::DCtx;

use super::{
    Files, MAGIC, ObjectSink, PLAN_MAX, missing,
    plan::{self, Block, Step},
};
use crate::{Entry, Hasher, RelPath, Sha256, Tree, TreeError, TreeId};

/// A delta whose head and plan have been read, its blocks still to come.
#[derive(Debug)]
pub struct Delta<R> {
    old: TreeId,
    new: TreeId,
    steps: Vec<Step>,
    blocks: Vec<Block>,
    rest: R,
}

/// A delta that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The stream ends early or cannot be read.
    #[error("cannot read the delta")]
    Read(#[source] io::Error),
    /// Not a delta of format 1.
    #[error("not a delta of format 1 (it begins with other bytes)")]
    NotADelta,
    /// Damaged or made by a faulty program.
    #[error("the delta is damaged: {0}")]
    Damaged(String),
    /// For another tree than the device has.
    #[error("the delta is for tree {wanted}, not for tree {actual}")]
    OtherTree {
        /// The tree it was made for.
        wanted: TreeId,
        /// The tree that is there.
        actual: TreeId,
    },
    /// The tree's part does not give the tree it promises.
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
    /// What comes out for a file is not what the tree says.
    #[error("the delta gives `{path}` a content that is not the one the release names")]
    WrongContent {
        /// The file.
        path: RelPath,
    },
    /// An old file cannot be read.
    #[error("cannot read `{path}` of the running release")]
    OldFile {
        /// The file.
        path: RelPath,
        /// What the system says.
        source: io::Error,
    },
    /// What was made cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: RelPath,
        /// What the system says.
        source: io::Error,
    },
}

impl<R: Read> Delta<R> {
    /// Reads the head and the plan.
    ///
    /// # Errors
    /// [`DeltaError`] when they are cut short or damaged.
    pub fn open(mut reader: R) -> Result<Self, DeltaError> {
        let mut head = [0; 80];
        reader.read_exact(&mut head).map_err(DeltaError::Read)?;
        let (magic, rest) = head.split_at(8);
        if magic != MAGIC {
            return Err(DeltaError::NotADelta);
        }
        let word = |at: usize| {
            u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]) as usize
        };
        let id = |at: usize| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&rest[at..at + 32]);
            TreeId(Sha256::from_bytes(bytes))
        };
        let (old, new, packed_len, len) = (id(0), id(32), word(64), word(68));
        if packed_len > PLAN_MAX || len > PLAN_MAX {
            return Err(DeltaError::Damaged(
                "its plan is larger than allowed".into(),
            ));
        }
        let packed = read_exactly(&mut reader, packed_len)?;
        let text = unpack(&packed, &[], len, "plan")?;
        let text = String::from_utf8(text)
            .map_err(|_| DeltaError::Damaged("its plan is no text".into()))?;
        let (steps, blocks) = plan::parse(&text).map_err(DeltaError::Damaged)?;
        Ok(Self {
            old,
            new,
            steps,
            blocks,
            rest: reader,
        })
    }

    /// The tree it is for.
    pub fn old(&self) -> TreeId {
        self.old
    }

    /// The tree it makes.
    pub fn new_id(&self) -> TreeId {
        self.new
    }

    /// The tree it makes of `old`, its id checked.
    ///
    /// # Errors
    /// [`DeltaError`] when `old` is another tree than it was made for, or the result is not the
    /// promised one.
    pub fn new_tree(&self, old: &Tree) -> Result<Tree, DeltaError> {
        let actual = old.id();
        if actual != self.old {
            return Err(DeltaError::OtherTree {
                wanted: self.old,
                actual,
            });
        }
        let tree = plan::patched(old, &self.steps)?
            .ok_or_else(|| DeltaError::Damaged("its plan does not fit the old tree".into()))?;
        let made = tree.id();
        if made == self.new {
            Ok(tree)
        } else {
            Err(DeltaError::WrongTree {
                made,
                promised: self.new,
            })
        }
    }

    /// Makes every content that `old` lacks, in the order of [`missing`], and gives it to `sink`;
    /// returns the new tree.
    ///
    /// # Errors
    /// [`DeltaError`]; `sink` has then been told `finish` only for contents that are right.
    pub fn apply(
        mut self,
        old: &Tree,
        old_files: &dyn Files,
        sink: &mut dyn ObjectSink,
    ) -> Result<Tree, DeltaError> {
        let new = self.new_tree(old)?;
        let old_entries: Vec<(&RelPath, &Entry)> = old.iter().collect();
        let mut blocks = std::mem::take(&mut self.blocks).into_iter();
        for (path, size_bytes, sha256) in missing(old, &new) {
            let write = |source| DeltaError::Write {
                path: path.clone(),
                source,
            };
            sink.begin(sha256, size_bytes).map_err(write)?;
            let mut hasher = Hasher::new();
            let mut left = size_bytes;
            while left > 0 {
                let block = blocks
                    .next()
                    .filter(|block| block.len as u64 <= left)
                    .ok_or_else(|| DeltaError::Damaged(format!("no block for `{path}`")))?;
                let bytes = self.block(block, &old_entries, old_files, &path)?;
                hasher.update(&bytes);
                sink.write(&bytes).map_err(write)?;
                left -= block.len as u64;
            }
            if hasher.finish() != sha256 {
                return Err(DeltaError::WrongContent { path });
            }
            sink.finish().map_err(write)?;
        }
        if blocks.next().is_some() {
            return Err(DeltaError::Damaged("it has more blocks than files".into()));
        }
        Ok(new)
    }

    fn block(
        &mut self,
        block: Block,
        old_entries: &[(&RelPath, &Entry)],
        old_files: &dyn Files,
        path: &RelPath,
    ) -> Result<Vec<u8>, DeltaError> {
        let packed = read_exactly(&mut self.rest, block.packed_len)?;
        let prefix = match block.reference {
            None => Vec::new(),
            Some(reference) => {
                let damaged = || DeltaError::Damaged(format!("`{path}` looks back at no old file"));
                let (old_path, entry) = old_entries.get(reference.entry).ok_or_else(damaged)?;
                let Entry::File { size_bytes, .. } = entry else {
                    return Err(damaged());
                };
                let end = reference.offset.checked_add(reference.len as u64);
                if end.is_none_or(|end| end > *size_bytes) {
                    return Err(damaged());
                }
                old_files
                    .read(old_path, reference.offset, reference.len)
                    .map_err(|source| DeltaError::OldFile {
                        path: (*old_path).clone(),
                        source,
                    })?
            }
        };
        unpack(&packed, &prefix, block.len, path.as_str())
    }
}

/// Reads `len` bytes; memory grows with what really comes, not with what is claimed.
fn read_exactly(reader: &mut impl Read, len: usize) -> Result<Vec<u8>, DeltaError> {
    let mut bytes = Vec::with_capacity(len.min(1 << 20));
    reader
        .take(len as u64)
        .read_to_end(&mut bytes)
        .map_err(DeltaError::Read)?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(DeltaError::Read(io::ErrorKind::UnexpectedEof.into()))
    }
}

fn unpack(packed: &[u8], prefix: &[u8], len: usize, what: &str) -> Result<Vec<u8>, DeltaError> {
    let damaged = |why: &str| DeltaError::Damaged(format!("`{what}` does not unpack ({why})"));
    let name = zstd::zstd_safe::get_error_name;
    let mut context = DCtx::create();
    if !prefix.is_empty() {
        context
            .ref_prefix(prefix)
            .map_err(|code| damaged(name(code)))?;
    }
    let mut out = Vec::with_capacity(len);
    context
        .decompress(&mut out, packed)
        .map_err(|code| damaged(name(code)))?;
    if out.len() == len {
        Ok(out)
    } else {
        Err(damaged("another length than planned"))
    }
}
