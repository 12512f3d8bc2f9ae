//! Divides the contents to be made into segments.

use super::{
    Files, REFERENCE_MAX, SEGMENT_MAX,
    make::{MakeError, in_parallel, read_new},
    pair::{Like, Pairs},
    plan::{Method, NewPiece, OldPiece},
    records,
};
use crate::{Entry, RelPath, Sha256};

/// What a segment of many small contents makes, at most, in bytes.
const GROUP_MAX: usize = 4 << 20;
/// Binaries from this size on are worth a segment of their own.
const PATCH_MIN: u64 = 4096;
/// How much of a content is looked at to find what it is like, in bytes.
const LOOK: u64 = 16 << 20;

/// A segment to be packed.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) method: Method,
    pub(super) old: Vec<OldPiece>,
    pub(super) new: Vec<NewPiece>,
    /// Bytes it makes.
    pub(super) len: usize,
}

/// A content to be made.
struct Content {
    number: usize,
    size: u64,
    class: Class,
    like: Like,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Binary,
    Text,
    Record,
}

/// The segments that make `missing`, in the order in which they are to be applied.
pub(super) fn jobs(
    missing: &[(RelPath, u64, Sha256)],
    pairs: &Pairs<'_>,
    new_files: &dyn Files,
) -> Result<Vec<Job>, MakeError> {
    let numbered: Vec<(usize, &(RelPath, u64, Sha256))> = missing.iter().enumerate().collect();
    let contents = in_parallel(&numbered, |(number, (path, size, _))| {
        let start = read_new(new_files, path, 0, (*size).min(LOOK) as usize)?;
        let class = if records::is_record(path) && *size < 1 << 20 {
            Class::Record
        } else if start[..start.len().min(8192)].contains(&0) {
            Class::Binary
        } else {
            Class::Text
        };
        Ok(Content {
            number: *number,
            size: *size,
            class,
            like: pairs.like(path, &start),
        })
    })?;

    let mut jobs = Vec::new();
    let mut groups: Vec<&Content> = Vec::new();
    for content in &contents {
        let alone = match content.class {
            Class::Binary => content.size >= PATCH_MIN,
            Class::Text => content.size > GROUP_MAX as u64,
            Class::Record => false,
        };
        if alone {
            single(content, pairs, &mut jobs);
        } else {
            groups.push(content);
        }
    }
    groups.sort_by_key(|content| (content.class, content.number));
    let mut group = Group::new(Method::Text);
    for content in groups {
        let method = match content.class {
            Class::Binary => Method::Binary,
            Class::Text => Method::Text,
            Class::Record => Method::Records,
        };
        if group.job.method != method || !group.fits(content, pairs) {
            group.end(&mut jobs);
            group = Group::new(method);
        }
        group.add(content, pairs);
    }
    group.end(&mut jobs);
    Ok(jobs)
}

fn size_of(pairs: &Pairs<'_>, entry: usize) -> u64 {
    match pairs.entry(entry).1 {
        Entry::File { size_bytes, .. } => *size_bytes,
        _ => 0,
    }
}

/// Many contents together.
struct Group {
    job: Job,
    old_len: u64,
}

impl Group {
    fn new(method: Method) -> Self {
        let job = Job {
            method,
            old: Vec::new(),
            new: Vec::new(),
            len: 0,
        };
        Self { job, old_len: 0 }
    }

    /// The old files that `content` would bring.
    fn old_of(&self, content: &Content, pairs: &Pairs<'_>) -> Vec<usize> {
        let likes = content.like.best.iter().copied().take(2);
        likes
            .filter(|entry| {
                let size = size_of(pairs, *entry);
                size > 0 && size <= REFERENCE_MAX as u64 / 4
            })
            .filter(|entry| self.job.old.iter().all(|piece| piece.entry != *entry))
            .collect()
    }

    fn fits(&self, content: &Content, pairs: &Pairs<'_>) -> bool {
        let old: u64 = self
            .old_of(content, pairs)
            .iter()
            .map(|entry| size_of(pairs, *entry))
            .sum();
        self.job.len as u64 + content.size <= GROUP_MAX as u64
            && self.old_len + old <= REFERENCE_MAX as u64
    }

    fn add(&mut self, content: &Content, pairs: &Pairs<'_>) {
        for entry in self.old_of(content, pairs) {
            self.old_len += size_of(pairs, entry);
            self.job.old.push(OldPiece { entry, part: None });
        }
        self.job.new.push(NewPiece {
            content: content.number,
            part: None,
            short: 0,
        });
        self.job.len += content.size as usize;
    }

    fn end(self, jobs: &mut Vec<Job>) {
        if !self.job.new.is_empty() {
            jobs.push(self.job);
        }
    }
}

/// One large content: as many segments as it needs.
fn single(content: &Content, pairs: &Pairs<'_>, jobs: &mut Vec<Job>) {
    let count = content.size.div_ceil(SEGMENT_MAX as u64);
    let step = content.size.div_ceil(count);
    for at in 0..count {
        let offset = at * step;
        let len = (content.size - offset).min(step) as usize;
        let mut old = Vec::new();
        let mut left = REFERENCE_MAX;
        // A patch is made of one old file; without one, of whatever is alike.
        for entry in &content.like.best {
            let size = size_of(pairs, *entry);
            if size == 0 || left < 4096 {
                continue;
            }
            let piece_len = size.min(left as u64);
            let part = (piece_len < size).then(|| {
                let middle = offset + len as u64 / 2;
                let middle =
                    (u128::from(middle) * u128::from(size) / u128::from(content.size)) as u64;
                let start = middle.saturating_sub(piece_len / 2).min(size - piece_len);
                (start, piece_len as usize)
            });
            left -= piece_len as usize;
            old.push(OldPiece {
                entry: *entry,
                part,
            });
        }
        let method = match content.class {
            Class::Text => Method::Text,
            _ if old.is_empty() => Method::Binary,
            _ => Method::Patch,
        };
        jobs.push(Job {
            method,
            old,
            new: vec![NewPiece {
                content: content.number,
                part: (count > 1).then_some((offset, len)),
                short: 0,
            }],
            len,
        });
    }
}
