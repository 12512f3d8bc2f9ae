//! Finds the old files that a new content is most like.
//!
//! By name first: the same path, then the same path with the versions in folder names forgiven
//! (`x-1.2.dist-info`), then by content: of all 32-byte windows of a file those whose hash ends in
//! zeros stand for it, so a file that was moved, renamed or split shares many of them with what it
//! came from.

use std::collections::HashMap;

use super::Files;
use crate::{Entry, RelPath, Sha256, Tree};

/// One window in this many stands for a file.
const SAMPLE: u64 = 128;
/// Files that the same window is remembered for.
const SHARED: usize = 6;
/// Windows of a file that are looked at, at most.
const WINDOWS_MAX: usize = 20_000;

/// The old tree, to be searched.
pub(super) struct Pairs<'a> {
    entries: Vec<(&'a RelPath, &'a Entry)>,
    by_path: HashMap<&'a str, usize>,
    by_shape: HashMap<String, Vec<usize>>,
    windows: HashMap<u64, Vec<u32>>,
}

/// Old entries that a content is like, the best first.
#[derive(Debug, Clone, Default)]
pub(super) struct Like {
    pub(super) best: Vec<usize>,
}

impl<'a> Pairs<'a> {
    /// Reads the old tree; files that cannot be read are not considered.
    pub(super) fn new(old: &'a Tree, files: &dyn Files) -> Self {
        let entries: Vec<(&RelPath, &Entry)> = old.iter().collect();
        let mut by_path = HashMap::new();
        let mut by_shape: HashMap<String, Vec<usize>> = HashMap::new();
        let mut distinct: HashMap<Sha256, usize> = HashMap::new();
        for (number, (path, entry)) in entries.iter().enumerate() {
            if let Entry::File { sha256, .. } = entry {
                by_path.insert(path.as_str(), number);
                by_shape
                    .entry(shape(path.as_str()))
                    .or_default()
                    .push(number);
                distinct.entry(*sha256).or_insert(number);
            }
        }
        let mut numbers: Vec<usize> = distinct.into_values().collect();
        numbers.sort_unstable();
        let sampled = super::make::in_parallel(&numbers, |number| {
            let (path, entry) = entries[*number];
            Ok(match entry {
                Entry::File { size_bytes, .. } => windows_of(files, path, *size_bytes),
                _ => Vec::new(),
            })
        })
        .unwrap_or_default();
        let mut windows: HashMap<u64, Vec<u32>> = HashMap::new();
        for (number, sample) in numbers.iter().zip(sampled) {
            for window in sample {
                let owners = windows.entry(window).or_default();
                if owners.len() < SHARED && owners.last() != Some(&(*number as u32)) {
                    owners.push(*number as u32);
                }
            }
        }
        Self {
            entries,
            by_path,
            by_shape,
            windows,
        }
    }

    pub(super) fn entry(&self, number: usize) -> (&'a RelPath, &'a Entry) {
        self.entries[number]
    }

    /// The old file at this path.
    pub(super) fn at(&self, path: &RelPath) -> Option<usize> {
        self.by_path.get(path.as_str()).copied()
    }

    /// What the new file at `path` with this content is like.
    pub(super) fn like(&self, path: &RelPath, content: &[u8]) -> Like {
        let mut votes: HashMap<u32, usize> = HashMap::new();
        let sample = windows(content);
        for owners in sample.iter().filter_map(|window| self.windows.get(window)) {
            for owner in owners {
                *votes.entry(*owner).or_default() += 1;
            }
        }
        let mut best: Vec<usize> = Vec::new();
        let named = self.at(path).or_else(|| self.same_shape(path));
        let named_votes = named.map_or(0, |n| votes.get(&(n as u32)).copied().unwrap_or(0));
        let mut ranked: Vec<(u32, usize)> = votes
            .into_iter()
            .filter(|(_, votes)| *votes * 50 > sample.len())
            .collect();
        ranked.sort_by_key(|(number, votes)| (std::cmp::Reverse(*votes), *number));
        // A namesake is preferred unless another file is clearly more alike.
        let first = ranked.first().copied();
        match (named, first) {
            (Some(named), Some((other, votes))) if votes > named_votes * 2 + 4 => {
                best.push(other as usize);
                best.push(named);
            }
            (Some(named), _) => best.push(named),
            _ => {}
        }
        for (number, _) in ranked.into_iter().take(4) {
            if !best.contains(&(number as usize)) {
                best.push(number as usize);
            }
        }
        Like { best }
    }

    fn same_shape(&self, path: &RelPath) -> Option<usize> {
        let candidates = self.by_shape.get(&shape(path.as_str()))?;
        let ours = path.as_str();
        candidates.iter().copied().max_by_key(|number| {
            let other = self.entries[*number].0.as_str();
            ours.bytes()
                .zip(other.bytes())
                .take_while(|(a, b)| a == b)
                .count()
        })
    }
}

/// The path without digits: `x-1.2.dist-info` and `x-1.13.dist-info` are alike.
fn shape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

fn windows_of(files: &dyn Files, path: &RelPath, size_bytes: u64) -> Vec<u64> {
    const PIECE: u64 = 4 << 20;
    let mut found = Vec::new();
    for piece in 0..size_bytes.div_ceil(PIECE) {
        let len = (size_bytes - piece * PIECE).min(PIECE) as usize;
        let Ok(bytes) = files.read(path, piece * PIECE, len) else {
            break;
        };
        found.extend(windows(&bytes));
        if found.len() >= WINDOWS_MAX {
            break;
        }
    }
    found
}

/// The windows that stand for `bytes`: a rolling hash over 32 bytes.
fn windows(bytes: &[u8]) -> Vec<u64> {
    let mut hash = 0_u64;
    let mut found = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        // Two bits a byte: what is more than 32 bytes back is shifted out.
        hash = (hash << 2).wrapping_add(
            u64::from(*byte)
                .wrapping_add(1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        if at >= 31 && (hash >> 40).is_multiple_of(SAMPLE) {
            found.push(hash);
            if found.len() >= WINDOWS_MAX {
                break;
            }
        }
    }
    found.dedup();
    found
}
