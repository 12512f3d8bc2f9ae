//! The plan of a delta: its text, written and read with every number bounded.

use std::{collections::HashMap, fmt::Write as _};

use super::{BLOCK_MAX, REFERENCE_MAX};
use crate::{Entry, RelPath, Tree, TreeError};

/// One block of a new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Its length when unpacked.
    pub(super) len: usize,
    /// What it looks back at.
    pub(super) reference: Option<Reference>,
    /// Its length in the delta.
    pub(super) packed_len: usize,
}

/// A piece of an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    /// Number of the entry in the old tree, from 0.
    pub(super) entry: usize,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// One step of the tree's patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Keep(usize),
    Skip(usize),
    Add(RelPath, Entry),
}

/// What turns the old tree document into the new one.
pub(super) fn steps(old: &Tree, new: &Tree) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return steps,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let (mut kept, mut skipped) = (0, 0);
        match order {
            std::cmp::Ordering::Less => skipped = olds.next().map_or(0, |_| 1),
            std::cmp::Ordering::Greater => {
                let Some((path, entry)) = news.next() else {
                    continue;
                };
                steps.push(Step::Add(path.clone(), entry.clone()));
            }
            std::cmp::Ordering::Equal => {
                let (Some((_, was)), Some((path, is))) = (olds.next(), news.next()) else {
                    continue;
                };
                if was == is {
                    kept = 1;
                } else {
                    skipped = 1;
                    steps.push(Step::Add(path.clone(), is.clone()));
                }
            }
        }
        if kept == 1 {
            match steps.last_mut() {
                Some(Step::Keep(n)) => *n += 1,
                _ => steps.push(Step::Keep(1)),
            }
        }
        if skipped == 1 {
            match steps.last_mut() {
                Some(Step::Skip(n)) => *n += 1,
                _ => steps.push(Step::Skip(1)),
            }
        }
    }
}

/// The tree that `steps` make of `old`; `None` when they do not fit it.
pub(super) fn patched(old: &Tree, steps: &[Step]) -> Result<Option<Tree>, TreeError> {
    let mut tree = Tree::default();
    let mut olds = old.iter();
    for step in steps {
        match step {
            Step::Keep(n) => {
                for _ in 0..*n {
                    let Some((path, entry)) = olds.next() else {
                        return Ok(None);
                    };
                    tree.insert(path.clone(), entry.clone())?;
                }
            }
            Step::Skip(n) => {
                for _ in 0..*n {
                    if olds.next().is_none() {
                        return Ok(None);
                    }
                }
            }
            Step::Add(path, entry) => tree.insert(path.clone(), entry.clone())?,
        }
    }
    Ok(olds.next().is_none().then_some(tree))
}

/// The plan's text.
pub(super) fn encode(steps: &[Step], blocks: &[Block]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Keep(n) => writeln!(out, "= {n}"),
            Step::Skip(n) => writeln!(out, "- {n}"),
            Step::Add(path, entry) => writeln!(out, "+ {}", entry.line(path)),
        }
        .expect("writing to a string does not fail");
    }
    out.push_str("@\n");
    for Block {
        len,
        reference,
        packed_len,
    } in blocks
    {
        match reference {
            Some(r) => writeln!(
                out,
                "b {len} {} {} {} {packed_len}",
                r.entry, r.offset, r.len
            ),
            None => writeln!(out, "b {len} - 0 0 {packed_len}"),
        }
        .expect("writing to a string does not fail");
    }
    out
}

/// Reads a plan's text.
///
/// # Errors
/// What is wrong with which line.
pub(super) fn parse(text: &str) -> Result<(Vec<Step>, Vec<Block>), String> {
    let (mut steps, mut blocks) = (Vec::new(), Vec::new());
    let mut in_tree = true;
    for (number, line) in text.lines().enumerate() {
        let wrong = |why: &str| format!("line {} of its plan {why}", number + 1);
        if line == "@" && in_tree {
            in_tree = false;
        } else if in_tree {
            let (kind, rest) = line.split_once(' ').ok_or_else(|| wrong("has one word"))?;
            steps.push(match kind {
                "=" => Step::Keep(rest.parse().map_err(|_| wrong("has no number"))?),
                "-" => Step::Skip(rest.parse().map_err(|_| wrong("has no number"))?),
                "+" => {
                    let (path, entry) = Entry::parse_line(rest).map_err(|e| wrong(&e))?;
                    Step::Add(path, entry)
                }
                _ => return Err(wrong("is of no known kind")),
            });
        } else {
            blocks.push(parse_block(line).ok_or_else(|| wrong("is no block"))?);
        }
    }
    if in_tree {
        Err("its plan is cut short".into())
    } else {
        Ok((steps, blocks))
    }
}

fn parse_block(line: &str) -> Option<Block> {
    let mut words = line.strip_prefix("b ")?.split(' ');
    let len: usize = words.next()?.parse().ok()?;
    let entry = words.next()?;
    let offset: u64 = words.next()?.parse().ok()?;
    let reference_len: usize = words.next()?.parse().ok()?;
    let packed_len: usize = words.next()?.parse().ok()?;
    let bounded = (1..=BLOCK_MAX).contains(&len)
        && reference_len <= REFERENCE_MAX
        && packed_len <= BLOCK_MAX + (BLOCK_MAX >> 6) + 1024;
    if words.next().is_some() || !bounded {
        return None;
    }
    let reference = match entry {
        "-" => None,
        number => Some(Reference {
            entry: number.parse().ok()?,
            offset,
            len: reference_len,
        }),
    };
    Some(Block {
        len,
        reference,
        packed_len,
    })
}

/// The old file most like the new one at `path`: the same path, else the same file name in the
/// most similar folder, versions in folder names (`x-1.2.dist-info`) forgiven.
pub(super) struct Likeness<'a> {
    numbers: HashMap<&'a str, usize>,
    by_name: HashMap<&'a str, Vec<(&'a RelPath, u64)>>,
}

impl<'a> Likeness<'a> {
    pub(super) fn new(old: &'a Tree) -> Self {
        let numbers = old
            .iter()
            .enumerate()
            .map(|(n, (path, _))| (path.as_str(), n))
            .collect();
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (path, size, _) in old.files() {
            by_name
                .entry(path.file_name())
                .or_default()
                .push((path, size));
        }
        Self { numbers, by_name }
    }

    /// Path, entry number and size of the old file to look back at.
    pub(super) fn best(&self, path: &RelPath) -> Option<(&'a RelPath, usize, u64)> {
        let (path, size) = self.same_path(path).or_else(|| self.same_name(path))?;
        Some((path, *self.numbers.get(path.as_str())?, size)).filter(|(_, _, size)| *size > 0)
    }

    fn same_path(&self, path: &RelPath) -> Option<(&'a RelPath, u64)> {
        let candidates = self.by_name.get(path.file_name())?;
        candidates.iter().find(|(other, _)| *other == path).copied()
    }

    fn same_name(&self, path: &RelPath) -> Option<(&'a RelPath, u64)> {
        let common = |other: &str| {
            let ours = path.as_str();
            let front = ours
                .bytes()
                .zip(other.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let back = ours
                .bytes()
                .rev()
                .zip(other.bytes().rev())
                .take_while(|(a, b)| a == b)
                .count();
            front + back
        };
        let candidates = self.by_name.get(path.file_name())?;
        candidates
            .iter()
            .max_by_key(|(other, _)| common(other.as_str()))
            .copied()
    }
}
