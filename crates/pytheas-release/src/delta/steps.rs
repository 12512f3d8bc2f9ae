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
    let (mut at, mut expected) = (0_usize, 0_i64);
    while !steps.is_empty() {
        let kind = number::get(&mut steps)?;
        match kind {
            KEEP | SKIP => {
                let count = number::get_up_to(&mut steps, old_entries.len() - at)?;
                let (from, to) = (at, at + count);
                at = to;
                if kind == KEEP {
                    let kept = old_entries[from..to].iter();
                    tree.entries
                        .extend(kept.map(|(path, entry)| ((*path).clone(), known(entry))));
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
                tree.entries.push((path, entry));
            }
            CHANGE => {
                let (path, _) = old_entries.get(at).ok_or(TOO_FAR)?;
                let entry = entry(&mut steps, &old_entries, &mut tree, &mut expected)?;
                tree.entries.push(((*path).clone(), entry));
                at += 1;
            }
            _ => return Err(Damaged("a step is of no known kind")),
        }
    }
    if at != old_entries.len() {
        return Err(Damaged("its steps end before the old tree"));
    }
    if tree.entries.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(Damaged("its paths are not in order"));
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
