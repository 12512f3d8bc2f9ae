//! The archive's headers: written in exactly one way, and read back only if they are that.

use std::io;

use pytheas_release::RelPath;

use super::{CONTENTS, END_BYTES, SUMS};

/// Files in an archive at most.
pub const MEMBERS_MAX: usize = 10_000;
/// Length of a block.
const BLOCK: usize = 512;
/// Longest file, in bytes: eleven octal digits.
const SIZE_MAX: u64 = (1 << 33) - 1;

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path.
    pub path: String,
    /// Where its content begins.
    pub offset: u64,
    /// Length of its content.
    pub size_bytes: u64,
}

/// A file that an archive cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The format has 100 bytes for the last part of a path and 155 for the rest.
    #[error("the path `{0}` is too long for an offline file")]
    Path(String),
    /// The format has eleven octal digits for a size.
    #[error("`{0}` is longer than 8 GiB, too long for an offline file")]
    Size(String),
}

/// Headers that are not those of an offline file.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Reading failed.
    #[error("cannot read byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// What the system says.
        source: io::Error,
    },
    /// It ends too early.
    #[error("it is cut short after {len} bytes")]
    Truncated {
        /// Its length.
        len: u64,
    },
    /// It does not even begin as one.
    #[error("{0}")]
    NoArchive(String),
    /// It begins as one.
    #[error("after `{after}`: {why}")]
    Wrong {
        /// The last file that was right.
        after: String,
        /// What is wrong.
        why: String,
    },
}

/// Zero bytes after a file of this length, up to the next block.
pub fn padding(size_bytes: u64) -> u64 {
    size_bytes.wrapping_neg() % BLOCK as u64
}

/// The only header that a file with this path and length can have.
///
/// # Errors
/// [`HeaderError`] when it can have none.
pub fn header(path: &str, size_bytes: u64) -> Result<[u8; BLOCK], HeaderError> {
    if size_bytes > SIZE_MAX {
        return Err(HeaderError::Size(path.to_owned()));
    }
    let too_long = || HeaderError::Path(path.to_owned());
    let (prefix, name) = if path.len() <= 100 {
        ("", path)
    } else {
        path.rsplit_once('/').ok_or_else(too_long)?
    };
    if prefix.len() > 155 || name.len() > 100 {
        return Err(too_long());
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0"); // mode
    put(108, b"0000000\0"); // user
    put(116, b"0000000\0"); // group
    put(124, format!("{size_bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // time
    put(148, b"        "); // check sum, counted as blanks
    put(156, b"0"); // a file
    put(257, b"ustar\x0000");
    put(329, b"0000000\0"); // device
    put(337, b"0000000\0");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// What a header says, if it is one that [`header`] makes.
fn parse(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let text = |from: usize, to: usize| {
        let field = block[from..to].split(|byte| *byte == 0).next()?;
        std::str::from_utf8(field).ok()
    };
    let (name, prefix) = (text(0, 100)?, text(345, 500)?);
    let path = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    };
    let size_bytes = u64::from_str_radix(text(124, 135)?, 8).ok()?;
    (header(&path, size_bytes).ok()? == *block).then_some((path, size_bytes))
}

/// Whether a path is one of a repository.
fn belongs(path: &str) -> bool {
    let below = ["blobs/", "metadata/", "targets/"];
    below.iter().any(|folder| path.starts_with(folder)) && path.parse::<RelPath>().is_ok()
}

/// The files of an archive of `len` bytes; `read_at` reads exactly the bytes at a place, and only
/// headers are read.
///
/// # Errors
/// [`ScanError`].
pub fn scan(
    len: u64,
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<Member>, ScanError> {
    let mut members: Vec<Member> = Vec::new();
    let mut at = 0;
    loop {
        let mut block = [0; BLOCK];
        let left = len - at;
        if members.is_empty() && left < END_BYTES {
            return Err(ScanError::NoArchive(format!("it has only {len} bytes")));
        }
        if left < BLOCK as u64 {
            return Err(ScanError::Truncated { len });
        }
        read_at(at, &mut block).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ScanError::Truncated { len },
            _ => ScanError::Read { at, source },
        })?;
        let wrong = |why: String| match members.last() {
            None => ScanError::NoArchive(why),
            Some(last) => ScanError::Wrong {
                after: last.path.clone(),
                why,
            },
        };
        if block == [0; BLOCK] {
            let complete = members.last().is_some_and(|last| last.path == SUMS);
            return match left {
                _ if !complete => Err(wrong(format!("it ends without `{SUMS}`"))),
                left if left < END_BYTES => Err(ScanError::Truncated { len }),
                END_BYTES => Ok(members),
                _ => Err(wrong("something follows its end".into())),
            };
        }
        let Some((path, size_bytes)) = parse(&block) else {
            return Err(wrong("no file begins where one should".into()));
        };
        let in_order = match members.last() {
            None => path == CONTENTS,
            Some(last) if last.path == SUMS => false,
            Some(_) if path == SUMS => true,
            Some(last) if last.path == CONTENTS => belongs(&path),
            Some(last) => belongs(&path) && last.path < path,
        };
        if !in_order {
            let shown: String = path.chars().take(300).collect();
            return Err(wrong(format!(
                "`{}` may not be there",
                shown.escape_default()
            )));
        }
        if members.len() == MEMBERS_MAX {
            return Err(wrong(format!("it holds more than {MEMBERS_MAX} files")));
        }
        let offset = at + BLOCK as u64;
        let needed = size_bytes + padding(size_bytes);
        if len - offset < needed {
            return Err(ScanError::Truncated { len });
        }
        at = offset + needed;
        members.push(Member {
            path,
            offset,
            size_bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, content) in files {
            bytes.extend(header(path, content.len() as u64).unwrap());
            bytes.extend(*content);
            bytes.resize(bytes.len() + padding(content.len() as u64) as usize, 0);
        }
        bytes.resize(bytes.len() + END_BYTES as usize, 0);
        bytes
    }

    fn scanned(bytes: &[u8]) -> Result<Vec<Member>, ScanError> {
        scan(bytes.len() as u64, &mut |at, block| {
            let at = usize::try_from(at).unwrap();
            let part = bytes.get(at..at + block.len());
            block.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[track_caller]
    fn refused(files: &[(&str, &[u8])], why: &str) {
        let error = scanned(&archive(files)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    const GOOD: &[(&str, &[u8])] = &[
        (CONTENTS, b"{}"),
        ("blobs/ab/abcd", b"content"),
        ("metadata/1.root.json", b""),
        (SUMS, b"sums"),
    ];

    #[test]
    fn what_was_written_is_found_again() {
        let bytes = archive(GOOD);
        let members = scanned(&bytes).unwrap();
        assert_eq!(members.len(), GOOD.len());
        for (member, (path, content)) in members.iter().zip(GOOD) {
            let from = member.offset as usize;
            assert_eq!(member.path, *path);
            assert_eq!(&bytes[from..from + member.size_bytes as usize], *content);
        }
    }

    #[test]
    fn long_paths_are_split_and_longer_ones_refused() {
        let long = format!("targets/{}/{}", "a".repeat(140), "b".repeat(90));
        let block = header(&long, 7).unwrap();
        assert_eq!(parse(&block), Some((long, 7)));
        for path in [
            format!("targets/{}", "b".repeat(101)),
            format!("targets/{}/x", "b".repeat(155)),
        ] {
            assert_eq!(header(&path, 7), Err(HeaderError::Path(path)));
        }
        assert!(matches!(
            header("blobs/x", 1 << 33),
            Err(HeaderError::Size(_))
        ));
    }

    #[test]
    fn files_that_do_not_belong_there_are_refused_by_name() {
        let end: (&str, &[u8]) = (SUMS, b"");
        let begin: (&str, &[u8]) = (CONTENTS, b"{}");
        let twice = [begin, ("blobs/a", b"1"), ("blobs/a", b"2"), end];
        refused(&twice, "after `blobs/a`: `blobs/a` may not be there");
        refused(
            &[begin, ("blobs/b", b""), ("blobs/a", b""), end],
            "`blobs/a`",
        );
        refused(
            &[begin, ("blobs/../../etc/passwd", b""), end],
            "`blobs/../../etc/passwd`",
        );
        refused(&[begin, ("/etc/passwd", b""), end], "`/etc/passwd`");
        refused(&[begin, ("state.json", b""), end], "`state.json`");
        refused(&[begin, begin, end], "`export.json`");
        refused(&[begin, end, ("targets/x", b"")], "`targets/x`");
        refused(&[("blobs/a", b""), end], "`blobs/a`");
        refused(&[begin, ("blobs/a", b"")], "ends without `SHA256SUMS`");
        refused(&[], "ends without `SHA256SUMS`");
    }

    #[test]
    fn too_many_files_are_refused() {
        let names: Vec<String> = (0..MEMBERS_MAX).map(|n| format!("blobs/{n:06}")).collect();
        let mut files: Vec<(&str, &[u8])> = vec![(CONTENTS, b"{}")];
        files.extend(names.iter().map(|name| (name.as_str(), &b""[..])));
        files.push((SUMS, b""));
        refused(&files, "holds more than 10000 files");
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_read() {
        let mut bytes = header(CONTENTS, SIZE_MAX).unwrap().to_vec();
        bytes.resize(4096, 0);
        assert!(matches!(
            scanned(&bytes),
            Err(ScanError::Truncated { len: 4096 })
        ));
    }

    #[test]
    fn an_archive_cut_anywhere_is_refused() {
        let bytes = archive(GOOD);
        for len in 0..bytes.len() {
            assert!(scanned(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(scanned(&longer).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_byte_in_a_header_is_noticed(at in 0..BLOCK, flip in 1..=255_u8, member in 0..4_usize) {
            let mut bytes = archive(GOOD);
            let offset = scanned(&bytes).unwrap()[member].offset as usize;
            bytes[offset - BLOCK + at] ^= flip;
            prop_assert!(scanned(&bytes).is_err());
        }

        #[test]
        fn whatever_is_read_lies_inside(bytes in proptest::collection::vec(any::<u8>(), 0..3000), good in any::<bool>()) {
            let mut all = if good { header(CONTENTS, 2).unwrap().to_vec() } else { Vec::new() };
            all.extend(bytes);
            if let Ok(members) = scanned(&all) {
                for member in members {
                    prop_assert!(member.offset + member.size_bytes <= all.len() as u64);
                }
            }
        }
    }
}
