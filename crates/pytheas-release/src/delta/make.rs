//! Makes a delta from two trees, on every core.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use super::{
    BLOCK_MAX, Files, MAGIC, PLAN_MAX, REFERENCE_MAX, missing,
    plan::{self, Block, Likeness, Reference},
};
use crate::{RelPath, Tree};

/// zstd's level for blocks: deltas are made once and sent often.
const LEVEL: i32 = 19;

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
    /// zstd refuses.
    #[error("cannot compress `{path}`: {why}")]
    Compress {
        /// The file, or `plan`.
        path: String,
        /// What zstd says.
        why: &'static str,
    },
    /// More entries than the format holds.
    #[error(
        "the trees are too large for one delta: the plan has {0} bytes, {PLAN_MAX} are allowed"
    )]
    TooLarge(usize),
}

/// The delta that turns `old` into `new` (format 1).
///
/// # Errors
/// [`MakeError`] when a file cannot be read.
pub fn make(
    old: &Tree,
    new: &Tree,
    old_files: &dyn Files,
    new_files: &dyn Files,
) -> Result<Vec<u8>, MakeError> {
    let likeness = Likeness::new(old);
    let jobs: Vec<Job<'_>> = missing(old, new)
        .into_iter()
        .flat_map(|(path, size_bytes, _)| {
            let like = likeness.best(&path);
            blocks_of(size_bytes).map(move |(offset, len)| Job {
                path: path.clone(),
                offset,
                len,
                size_bytes,
                like,
            })
        })
        .collect();

    let packed = run_all(&jobs, old_files, new_files)?;
    let blocks: Vec<Block> = packed.iter().map(|(block, _)| *block).collect();
    let plan = plan::encode(&plan::steps(old, new), &blocks);
    if plan.len() > PLAN_MAX {
        return Err(MakeError::TooLarge(plan.len()));
    }
    let packed_plan = compress(plan.as_bytes(), &[]).map_err(|why| MakeError::Compress {
        path: "plan".into(),
        why,
    })?;

    let payload: usize = packed.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(80 + packed_plan.len() + payload);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(old.id().0.as_bytes());
    out.extend_from_slice(new.id().0.as_bytes());
    for len in [packed_plan.len(), plan.len()] {
        let len = u32::try_from(len).map_err(|_| MakeError::TooLarge(len))?;
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(&packed_plan);
    for (_, bytes) in &packed {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

/// One block to be packed.
struct Job<'a> {
    path: RelPath,
    offset: u64,
    len: usize,
    size_bytes: u64,
    like: Option<(&'a RelPath, usize, u64)>,
}

fn blocks_of(size_bytes: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..size_bytes.div_ceil(BLOCK_MAX as u64)).map(move |i| {
        let offset = i * BLOCK_MAX as u64;
        (offset, (size_bytes - offset).min(BLOCK_MAX as u64) as usize)
    })
}

fn run_all(
    jobs: &[Job<'_>],
    old_files: &dyn Files,
    new_files: &dyn Files,
) -> Result<Vec<(Block, Vec<u8>)>, MakeError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    let failure = Mutex::new(None);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { break };
            match job.run(old_files, new_files) {
                Ok(packed) => done
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .push((at, packed)),
                Err(error) => {
                    failure
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .get_or_insert(error);
                    next.store(jobs.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, packed)| packed).collect())
}

impl Job<'_> {
    fn run(
        &self,
        old_files: &dyn Files,
        new_files: &dyn Files,
    ) -> Result<(Block, Vec<u8>), MakeError> {
        let compress_here = |bytes: &[u8], prefix: &[u8]| {
            compress(bytes, prefix).map_err(|why| MakeError::Compress {
                path: self.path.to_string(),
                why,
            })
        };
        let bytes = new_files
            .read(&self.path, self.offset, self.len)
            .map_err(|source| MakeError::Read {
                path: self.path.clone(),
                which: "new",
                source,
            })?;
        let mut best = None;
        if let Some((path, entry, old_size)) = self.like {
            let (offset, len) = self.window(old_size);
            let prefix = old_files
                .read(path, offset, len)
                .map_err(|source| MakeError::Read {
                    path: path.clone(),
                    which: "old",
                    source,
                })?;
            let packed = compress_here(&bytes, &prefix)?;
            let reference = Some(Reference { entry, offset, len });
            best = Some((
                Block {
                    len: self.len,
                    reference,
                    packed_len: packed.len(),
                },
                packed,
            ));
        }
        // A block that the old file explains well need not be tried without it.
        if let Some(best) = best.take_if(|(_, packed)| packed.len() < self.len / 8) {
            return Ok(best);
        }
        let alone = compress_here(&bytes, &[])?;
        let alone = (
            Block {
                len: self.len,
                reference: None,
                packed_len: alone.len(),
            },
            alone,
        );
        Ok(match best {
            Some(best) if best.1.len() < alone.1.len() => best,
            _ => alone,
        })
    }

    /// The piece of the old file that most likely holds what this block holds: as far into the old
    /// file as the block is into the new one, with the rest of [`REFERENCE_MAX`] on both sides.
    fn window(&self, old_size: u64) -> (u64, usize) {
        let len = old_size.min(REFERENCE_MAX as u64);
        let middle = self.offset + self.len as u64 / 2;
        let middle =
            (u128::from(middle) * u128::from(old_size) / u128::from(self.size_bytes.max(1))) as u64;
        (
            middle.saturating_sub(len / 2).min(old_size - len),
            len as usize,
        )
    }
}

fn compress(bytes: &[u8], prefix: &[u8]) -> Result<Vec<u8>, &'static str> {
    let why = zstd::zstd_safe::get_error_name;
    let mut context = CCtx::create();
    let window_log = usize::BITS - (bytes.len() + prefix.len()).max(1024).leading_zeros();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window_log.clamp(10, 27)),
        CParameter::EnableLongDistanceMatching(prefix.len() > (1 << 20)),
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(why)?;
    }
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(why)?;
    }
    let mut out = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).map_err(why)?;
    Ok(out)
}
