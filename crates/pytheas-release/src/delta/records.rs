//! `RECORD` files of installed Python packages without the hashes that the tree knows anyway.
//!
//! A line `path,sha256=HASH,size` (PEP 376, PEP 427: unpadded URL-safe base64) whose file is in the
//! tree with this very hash and size becomes `path,=`.

use crate::{RelPath, Sha256};

/// What a tree says about a file.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<(u64, Sha256)>;

/// Whether a file is named as such a file is.
#[cfg(any(feature = "make-deltas", test))]
pub(super) fn is_record(path: &RelPath) -> bool {
    base(path).is_some()
}

/// The folder that the lines of the record at `path` are relative to, with its slash.
fn base(path: &RelPath) -> Option<&str> {
    let folder = path.as_str().strip_suffix("/RECORD")?;
    if !folder.ends_with(".dist-info") {
        return None;
    }
    Some(folder.rfind('/').map_or("", |at| &folder[..=at]))
}

/// The record without what the tree knows.
pub(super) fn shorten(path: &RelPath, text: &[u8], tree: Lookup<'_>) -> Option<Vec<u8>> {
    let base = base(path)?;
    let text = std::str::from_utf8(text).ok()?;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (content, end) = split_end(line);
        let known = content.rfind(",sha256=").filter(|at| {
            tree(&format!("{base}{}", &content[..*at]))
                .is_some_and(|(size, sha256)| content[*at..] == entry(size, sha256))
        });
        match known {
            Some(at) => {
                out.push_str(&content[..at]);
                out.push_str(",=");
            }
            None => out.push_str(content),
        }
        out.push_str(end);
    }
    Some(out.into_bytes())
}

/// The record that was shortened, of exactly `len` bytes.
pub(super) fn restore(
    path: &RelPath,
    short: &[u8],
    tree: Lookup<'_>,
    len: usize,
) -> Option<Vec<u8>> {
    let base = base(path)?;
    let short = std::str::from_utf8(short).ok()?;
    let mut out = String::with_capacity(len);
    for line in short.split_inclusive('\n') {
        let (content, end) = split_end(line);
        match content.strip_suffix(",=") {
            Some(name) => {
                let (size, sha256) = tree(&format!("{base}{name}"))?;
                out.push_str(name);
                out.push_str(&entry(size, sha256));
            }
            None => out.push_str(content),
        }
        out.push_str(end);
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then(|| out.into_bytes())
}

fn split_end(line: &str) -> (&str, &str) {
    let content = line.trim_end_matches(['\r', '\n']);
    (content, &line[content.len()..])
}

fn entry(size: u64, sha256: Sha256) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::from(",sha256=");
    for three in sha256.as_bytes().chunks(3) {
        let word = three
            .iter()
            .chain(&[0; 2])
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for digit in 0..=three.len() {
            out.push(char::from(DIGITS[word >> (18 - 6 * digit) & 63]));
        }
    }
    out.push_str(&format!(",{size}"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_loses_the_hashes_that_the_tree_knows_and_gets_them_back() {
        let path: RelPath = "lib/x-1.2.dist-info/RECORD".parse().unwrap();
        let known = Sha256::of(b"");
        let tree = |name: &str| (name == "lib/x/__init__.py").then_some((0, known));
        let text = "x/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\r\n\
                    x/other.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n\
                    x-1.2.dist-info/RECORD,,\n";
        let short = shorten(&path, text.as_bytes(), &tree).unwrap();
        assert!(short.starts_with(b"x/__init__.py,=\r\nx/other.py,sha256=47"));
        assert_eq!(
            restore(&path, &short, &tree, text.len()).unwrap(),
            text.as_bytes()
        );
        assert_eq!(restore(&path, &short, &tree, text.len() - 1), None);
        assert_eq!(restore(&path, &short, &|_| None, text.len()), None);
        assert!(!is_record(&"lib/RECORD".parse().unwrap()));
    }
}
