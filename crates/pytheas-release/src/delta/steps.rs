//! The tree's part of a plan: what turns the old tree's entries into the new one's, the hashes of
//! new contents left out.

#[cfg(any(feature = "make-deltas", test))]
mod write;

use pytheas_codec::{Damaged, number};

#[cfg(any(feature = "make-deltas", test))]
pub(super) use write::encode;

use crate::{Entry, RelPath, Sha256, Tree};

/// The content of a file of the new tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// One that the old tree has.
    Known { size_bytes: u64, sha256: Sha256 },
    /// The one with this number that the delta makes.
    Made(usize),
}

/// An entry of the new tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NewEntry {
    File { executable: bool, content: Content },
    Symlink { target: String },
    Directory,
}

/// The new tree before its contents are made, sorted by path.
#[derive(Debug, Default)]
pub(super) struct NewTree {
    pub(super) entries: Vec<(RelPath, NewEntry)>,
    /// Number of contents that are made.
    pub(super) made: usize,
}

/// What the names of a tree, and each with [`ENTRY_COST`], may take together, in bytes.
const NAMES_MAX: usize = 32 << 20;
/// What an entry takes beside its name.
const ENTRY_COST: usize = 96;

impl NewTree {
    fn push(
        &mut self,
        path: RelPath,
        entry: NewEntry,
        names_left: &mut usize,
    ) -> Result<(), Damaged> {
        if self.entries.last().is_some_and(|(last, _)| *last >= path) {
            return Err(Damaged("its paths are not in order"));
        }
        let cost = ENTRY_COST + path.as_str().len();
        *names_left = names_left
            .checked_sub(cost)
            .ok_or(Damaged("its tree is larger than allowed"))?;
        self.entries.push((path, entry));
        Ok(())
    }
}

const KEEP: u64 = 0;
const SKIP: u64 = 1;
const ADD: u64 = 2;
const CHANGE: u64 = 3;

const NEXT: u64 = 0;
const AGAIN: u64 = 1;
const KNOWN: u64 = 2;

fn get_text<'a>(steps: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    let len = number::get_up_to(steps, steps.len())?;
    let (bytes, rest) = steps
        .split_at_checked(len)
        .ok_or(Damaged("a name is cut short"))?;
    *steps = rest;
    std::str::from_utf8(bytes).map_err(|_| Damaged("a name is no text"))
}

/// The new tree that `steps` make of `old`.
///
/// # Errors
/// [`Damaged`] when they do not fit it.
pub(super) fn decode(mut steps: &[u8], old: &Tree) -> Result<NewTree, Damaged> {
    const TOO_FAR: Damaged = Damaged("its steps go beyond the old tree");
    let old_entries: Vec<(&RelPath, &Entry)> = old.iter().collect();
    let mut tree = NewTree::default();
    // What the new tree's names may take together: each may begin as the one before does, so they
    // can be much longer than what is read.
    let mut names_left = NAMES_MAX;
    let (mut at, mut expected) = (0_usize, 0_i64);
    while !steps.is_empty() {
        let kind = number::get(&mut steps)?;
        match kind {
            KEEP | SKIP => {
                let count = number::get_up_to(&mut steps, old_entries.len() - at)?;
                let (from, to) = (at, at + count);
                at = to;
                if kind == KEEP {
                    for (path, entry) in &old_entries[from..to] {
                        tree.push((*path).clone(), known(entry), &mut names_left)?;
                    }
                }
            }
            ADD => {
                let last = tree.entries.last().map_or("", |(path, _)| path.as_str());
                let shared = number::get_up_to(&mut steps, last.len())?;
                let start = last
                    .get(..shared)
                    .ok_or(Damaged("a name is cut inside a character"))?
                    .to_owned();
                let path = format!("{start}{}", get_text(&mut steps)?)
                    .parse()
                    .map_err(|_| Damaged("a path is not allowed"))?;
                let entry = entry(&mut steps, &old_entries, &mut tree, &mut expected)?;
                tree.push(path, entry, &mut names_left)?;
            }
            CHANGE => {
                let (path, _) = old_entries.get(at).ok_or(TOO_FAR)?;
                let entry = entry(&mut steps, &old_entries, &mut tree, &mut expected)?;
                tree.push((*path).clone(), entry, &mut names_left)?;
                at += 1;
            }
            _ => return Err(Damaged("a step is of no known kind")),
        }
    }
    if at != old_entries.len() {
        return Err(Damaged("its steps end before the old tree"));
    }
    Ok(tree)
}

fn known(entry: &Entry) -> NewEntry {
    match entry {
        Entry::File {
            size_bytes,
            sha256,
            executable,
        } => NewEntry::File {
            executable: *executable,
            content: Content::Known {
                size_bytes: *size_bytes,
                sha256: *sha256,
            },
        },
        Entry::Symlink { target } => NewEntry::Symlink {
            target: target.clone(),
        },
        Entry::Directory => NewEntry::Directory,
    }
}

fn entry(
    steps: &mut &[u8],
    old_entries: &[(&RelPath, &Entry)],
    tree: &mut NewTree,
    expected: &mut i64,
) -> Result<NewEntry, Damaged> {
    let kind = number::get(steps)?;
    let content = match kind >> 2 {
        _ if kind == 2 => {
            let target = get_text(steps)?.to_owned();
            return Ok(NewEntry::Symlink { target });
        }
        _ if kind == 3 => return Ok(NewEntry::Directory),
        _ if kind & 2 != 0 => return Err(Damaged("an entry is of no known kind")),
        NEXT => {
            tree.made += 1;
            Content::Made(tree.made - 1)
        }
        AGAIN => {
            let last = tree
                .made
                .checked_sub(1)
                .ok_or(Damaged("a content is named before it is made"))?;
            Content::Made(number::get_up_to(steps, last)?)
        }
        KNOWN => {
            let number = expected
                .checked_add(number::get_signed(steps)?)
                .and_then(|number| usize::try_from(number).ok());
            let old = number.and_then(|number| Some((number, old_entries.get(number)?.1)));
            let Some((
                number,
                Entry::File {
                    size_bytes, sha256, ..
                },
            )) = old
            else {
                return Err(Damaged("an entry looks back at no old file"));
            };
            *expected = number as i64 + 1;
            Content::Known {
                size_bytes: *size_bytes,
                sha256: *sha256,
            }
        }
        _ => return Err(Damaged("an entry is of no known kind")),
    };
    Ok(NewEntry::File {
        executable: kind & 1 == 1,
        content,
    })
}
