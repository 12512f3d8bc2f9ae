//! A tree: the files a device gets, without times and owners, and its canonical encoding.
//!
//! ```text
//! pytheas-tree 1
//! x 14408 ba78…15ad bin/greenhouse
//! d data/empty
//! l python3.11 python/bin/python3
//! f 2210 9f86…0a08 python/lib/python3.11/abc.py
//! ```
//! `f` file, `x` executable file: size in bytes, SHA-256, path. `l` symbolic link: target, path.
//! `d` empty directory: path (others follow from the files in them). One line an entry, sorted by
//! the bytes of the path, the path last because it may hold blanks; in a link's target `%`, blank
//! and control characters are written `%XX`. The SHA-256 of this text is the tree's identity, so
//! there is exactly one way to write a tree: [`Tree::parse`] refuses every other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Hasher, PathError, RelPath, Sha256, TreeId};

const FIRST_LINE: &str = "pytheas-tree 1";

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// A regular file, mode 0644, or 0755 when executable.
    File {
        /// Length in bytes.
        size_bytes: u64,
        /// Hash of the content.
        sha256: Sha256,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link that stays inside the tree.
    Symlink {
        /// What it points to, relative to its own folder.
        target: String,
    },
    /// An empty directory, mode 0755.
    Directory,
}

/// All files of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<RelPath, Entry>,
}

/// Why something is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The first line is not `pytheas-tree 1`.
    #[error("not a tree document: its first line is not `{FIRST_LINE}`")]
    NotATree,
    /// A line that is no entry.
    #[error("line {line} of the tree document is no entry: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The text is not the canonical one of this tree.
    #[error("the tree document is not in canonical form (order, numbers or final newline)")]
    NotCanonical,
    /// Two entries of one path, or an entry below a file or link.
    #[error("`{path}` is in the tree twice, or lies below something that is no directory")]
    Clash {
        /// The path.
        path: RelPath,
    },
    /// A link out of the tree.
    #[error("the link `{path}` points to `{target}`, outside the tree")]
    LinkOutside {
        /// The link.
        path: RelPath,
        /// Where it points.
        target: String,
    },
}

impl Tree {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`TreeError::Clash`] when the path is taken, lies below a file or link, or has entries
    /// below it; [`TreeError::LinkOutside`] for a link that is absolute or climbs out.
    pub fn insert(&mut self, path: RelPath, entry: Entry) -> Result<(), TreeError> {
        if let Entry::Symlink { target } = &entry
            && !stays_inside(&path, target)
        {
            return Err(TreeError::LinkOutside {
                path,
                target: target.clone(),
            });
        }
        let below_file = path
            .as_str()
            .match_indices('/')
            .any(|(at, _)| self.entries.contains_key(&path.as_str()[..at]));
        let children = format!("{path}/");
        let has_children = self
            .entries
            .range::<str, _>((
                std::ops::Bound::Excluded(children.as_str()),
                std::ops::Bound::Unbounded,
            ))
            .next()
            .is_some_and(|(next, _)| next.as_str().starts_with(&children));
        if below_file || has_children || self.entries.contains_key(&path) {
            return Err(TreeError::Clash { path });
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// The entries in the order of their paths' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Entry)> {
        self.entries.iter()
    }

    /// The entry at `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The files: path, size in bytes, hash.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, u64, Sha256)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File {
                size_bytes, sha256, ..
            } => Some((path, *size_bytes, *sha256)),
            _ => None,
        })
    }

    /// The different contents in it: hash → size in bytes.
    pub fn objects(&self) -> BTreeMap<Sha256, u64> {
        self.files()
            .map(|(_, size, sha256)| (sha256, size))
            .collect()
    }

    /// Sum of the files' sizes.
    pub fn size_bytes(&self) -> u64 {
        self.files().map(|(_, size, _)| size).sum()
    }

    /// Number of files (links and directories not counted).
    pub fn file_count(&self) -> u64 {
        self.files().count() as u64
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = String::with_capacity(64 + self.entries.len() * 140);
        out.push_str(FIRST_LINE);
        out.push('\n');
        for (path, entry) in &self.entries {
            entry.write_line(path, &mut out);
        }
        out.into_bytes()
    }

    /// Identity: SHA-256 of [`Self::encode`].
    pub fn id(&self) -> TreeId {
        Self::id_of(self.entries.iter())
    }

    /// The id of a tree with these entries, which come in order.
    pub(crate) fn id_of<'e>(entries: impl Iterator<Item = (&'e RelPath, &'e Entry)>) -> TreeId {
        let mut hasher = Hasher::new();
        hasher.update(FIRST_LINE.as_bytes());
        hasher.update(b"\n");
        let mut line = String::new();
        for (path, entry) in entries {
            line.clear();
            entry.write_line(path, &mut line);
            hasher.update(line.as_bytes());
        }
        TreeId(hasher.finish())
    }

    /// The tree with this canonical encoding.
    ///
    /// # Errors
    /// [`TreeError`] for anything that [`Self::encode`] would not have written.
    pub fn parse(bytes: &[u8]) -> Result<Self, TreeError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TreeError::NotATree)?;
        let body = text
            .strip_prefix(FIRST_LINE)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or(TreeError::NotATree)?;
        let mut tree = Self::default();
        let mut is_canonical = true;
        let mut again = String::new();
        for (number, line) in body.split_inclusive('\n').enumerate() {
            let text = line.strip_suffix('\n').unwrap_or(line);
            let (path, entry) = Entry::parse_line(text).map_err(|why| TreeError::Line {
                line: number + 2,
                why,
            })?;
            // In order, and each line as it would be written: then all of it is.
            again.clear();
            entry.write_line(&path, &mut again);
            let last = tree.entries.last_key_value();
            is_canonical &= again == line && last.is_none_or(|(last, _)| *last < path);
            tree.insert(path, entry)?;
        }
        match is_canonical {
            true => Ok(tree),
            false => Err(TreeError::NotCanonical),
        }
    }
}

impl Entry {
    /// Appends the entry's line in a tree document.
    fn write_line(&self, path: &RelPath, out: &mut String) {
        use std::fmt::Write as _;
        // A `String` takes whatever is written to it.
        let _always_ok = match self {
            Self::File {
                size_bytes,
                sha256,
                executable,
            } => {
                let kind = if *executable { 'x' } else { 'f' };
                write!(out, "{kind} {size_bytes} {sha256} ")
            }
            Self::Symlink { target } => write!(out, "l {} ", escape(target)),
            Self::Directory => write!(out, "d "),
        };
        out.push_str(path.as_str());
        out.push('\n');
    }

    /// The entry in a line of a tree document.
    pub(crate) fn parse_line(line: &str) -> Result<(RelPath, Self), String> {
        let path = |text: &str| {
            text.parse()
                .map_err(|e: PathError| format!("path `{text}` {e}"))
        };
        let (kind, rest) = line.split_once(' ').ok_or("it has one word only")?;
        match kind {
            "f" | "x" => {
                let (size, rest) = rest.split_once(' ').ok_or("no size")?;
                let (hash, name) = rest.split_once(' ').ok_or("no hash")?;
                Ok((
                    path(name)?,
                    Self::File {
                        size_bytes: size.parse().map_err(|_| format!("size `{size}`"))?,
                        sha256: hash.parse().map_err(|e| format!("{e}"))?,
                        executable: kind == "x",
                    },
                ))
            }
            "l" => {
                let (target, name) = rest.split_once(' ').ok_or("no target")?;
                Ok((
                    path(name)?,
                    Self::Symlink {
                        target: unescape(target).ok_or("bad escape")?,
                    },
                ))
            }
            "d" => Ok((path(rest)?, Self::Directory)),
            _ => Err(format!("unknown kind `{kind}`")),
        }
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c == '%' || c.is_ascii_control() {
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Whether a link at `path` to `target` points into the tree, by the names alone.
fn stays_inside(path: &RelPath, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = path.as_str().matches('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(content: &[u8]) -> Entry {
        Entry::File {
            size_bytes: content.len() as u64,
            sha256: Sha256::of(content),
            executable: false,
        }
    }

    fn path(text: &str) -> RelPath {
        text.parse().unwrap()
    }

    #[test]
    fn the_encoding_is_fixed_for_ever() {
        let mut tree = Tree::default();
        tree.insert(
            path("bin/app"),
            Entry::File {
                size_bytes: 3,
                sha256: Sha256::of(b"abc"),
                executable: true,
            },
        )
        .unwrap();
        tree.insert(path("a b.txt"), file(b"")).unwrap();
        tree.insert(
            path("bin/link"),
            Entry::Symlink {
                target: "../a b.txt".into(),
            },
        )
        .unwrap();
        tree.insert(path("empty"), Entry::Directory).unwrap();
        insta::assert_snapshot!(String::from_utf8(tree.encode()).unwrap(), @r"
        pytheas-tree 1
        f 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 a b.txt
        x 3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad bin/app
        l ../a%20b.txt bin/link
        d empty
        ");
        assert_eq!(Tree::parse(&tree.encode()).unwrap(), tree);
    }

    #[test]
    fn nothing_lies_below_a_file_or_link() {
        let mut tree = Tree::default();
        tree.insert(path("a"), Entry::Symlink { target: "b".into() })
            .unwrap();
        assert!(matches!(
            tree.insert(path("a/x"), file(b"")),
            Err(TreeError::Clash { .. })
        ));
        tree.insert(path("c/d/e"), file(b"")).unwrap();
        assert!(matches!(
            tree.insert(path("c/d"), file(b"")),
            Err(TreeError::Clash { .. })
        ));
        assert!(matches!(
            tree.insert(path("c"), Entry::Directory),
            Err(TreeError::Clash { .. })
        ));
        tree.insert(path("c/d-e"), file(b"")).unwrap();
    }

    #[test]
    fn links_stay_inside_the_tree() {
        let mut tree = Tree::default();
        for target in ["/etc/passwd", "../../x", "x/../../../y", ""] {
            let result = tree.insert(
                path("d/link"),
                Entry::Symlink {
                    target: target.into(),
                },
            );
            assert!(
                matches!(result, Err(TreeError::LinkOutside { .. })),
                "{target}"
            );
        }
        tree.insert(
            path("d/link"),
            Entry::Symlink {
                target: "../x".into(),
            },
        )
        .unwrap();
    }

    #[test]
    fn only_the_canonical_text_is_read() {
        for (text, why) in [
            ("", "first line"),
            ("pytheas-tree 2\n", "first line"),
            ("pytheas-tree 1\nf 1 00 a\n", "line 2"),
            ("pytheas-tree 1\nd b\nd a\n", "canonical"),
            ("pytheas-tree 1\nd a\nd a\n", "twice"),
            ("pytheas-tree 1\nd a", "canonical"),
            ("pytheas-tree 1\nd ../a\n", "climbs out"),
            ("pytheas-tree 1\nl %2 a\n", "bad escape"),
            ("pytheas-tree 1\nl %41 a\n", "canonical"),
        ] {
            let error = Tree::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_tree_survives_its_encoding(paths in prop::collection::vec("[a-c]{1,2}(/[a-c .%é]{1,3}){0,3}", 0..30)) {
            let mut tree = Tree::default();
            for (i, text) in paths.iter().enumerate() {
                let Ok(path) = text.parse::<RelPath>() else { continue };
                let entry = match i % 3 {
                    0 => file(text.as_bytes()),
                    1 => Entry::Symlink { target: format!("x {i}%/é") },
                    _ => Entry::Directory,
                };
                let _clashes_are_refused = tree.insert(path, entry);
            }
            prop_assert_eq!(Tree::parse(&tree.encode()).unwrap(), tree);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut document = b"pytheas-tree 1\n".to_vec();
            document.extend(bytes);
            if let Ok(tree) = Tree::parse(&document) {
                prop_assert_eq!(tree.encode(), document);
            }
        }
    }
}
