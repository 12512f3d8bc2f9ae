//! ROMFS images: written deterministically, read strictly.
//!
//! ```text
//! image    d2 cd 31   length   records …          a record of kind 0x14a6b1
//! record   kind       length   payload            kind and length: varuints, most significant first
//!   1      padding    2  data    3  pointer: size, offset behind the image's length field
//!   4      directory: name length, name, records     5  file: name length, name, data or pointer
//!   0x66   (private) files with full hashes: sha256 (32), path length, path; sorted by path
//! ```
//! Source: the header of MicroPython's `extmod/vfs_rom.c` (1.25 to 1.29). Unknown kinds are skipped by
//! every reader, which is how the private records of [`pytheas_release::board`] live in an image that
//! any `vfs.VfsRom` mounts.
//!
//! Nothing is aligned: byte code and strings are read byte by byte where they lie, and native code
//! is copied to executable RAM (`load_raw_code` in `py/persistentcode.c`).
//!
//! ```
//! use std::collections::BTreeMap;
//! use pytheas_board::romfs::{self, Rom};
//!
//! let files = BTreeMap::from([("app/main.py".parse()?, b"print(1)\n".to_vec())]);
//! let image = romfs::plain(&files)?;
//! assert_eq!(Rom::read(&image)?.files.values().next(), Some(&&b"print(1)\n"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod read;
mod write;

pub use read::{Listed, Rom};
pub use write::{body, image, plain};

use miette::Diagnostic;
use pytheas_release::{PathError, RelPath};

/// Record kind of data that stands in the record itself.
const KIND_DATA: u8 = 2;
/// Record kind of data that lies elsewhere in the image.
const KIND_POINTER: u8 = 3;
/// Record kind of a directory.
const KIND_DIRECTORY: u8 = 4;
/// Record kind of a file.
const KIND_FILE: u8 = 5;

/// Longest path of a module below the place where an image is mounted, in bytes: most ports look
/// for modules with 128 bytes (`MICROPY_ALLOC_PATH_MAX`), less the `/app/` before and the NUL behind.
/// Files that are only opened may lie deeper.
pub const IMPORT_PATH_MAX: usize = 122;

/// Directories in directories that are read and written, at most.
const DEPTH_MAX: usize = 64;
/// Files and directories that are read, at most.
const ENTRIES_MAX: usize = 65_536;

/// A tree that no image can hold, or bytes that are no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum RomfsError {
    /// A name that is none.
    #[error("no file system of a board can hold `{name}`: the path {why}")]
    #[diagnostic(
        code(pytheas::board::romfs_name),
        help(
            "rename the file: names are UTF-8, 1 to 255 bytes, without control characters, and neither `.` nor `..`"
        )
    )]
    Name {
        /// The name, made printable.
        name: String,
        /// What is wrong with it.
        why: PathError,
    },
    /// Two entries at one place.
    #[error("`{path}` is a file and a folder at once")]
    #[diagnostic(
        code(pytheas::board::romfs_clash),
        help("rename one of them: a file system holds either at one place")
    )]
    Clash {
        /// The place.
        path: RelPath,
    },
    /// More than the format or this program holds.
    #[error("the files do not fit into a ROMFS image: {why}")]
    #[diagnostic(
        code(pytheas::board::romfs_size),
        help("leave files out, or put large data on the board's writable file system")
    )]
    TooLarge {
        /// What is too much.
        why: &'static str,
    },
    /// Bytes that are no image, or a damaged one.
    #[error("no ROMFS image: {why}, at byte {at}")]
    #[diagnostic(
        code(pytheas::board::romfs_damaged),
        help("build it again with `pytheas build`, or read it again from the board")
    )]
    Damaged {
        /// What is wrong.
        why: &'static str,
        /// Where, counted from the image's first byte.
        at: usize,
    },
}

/// The path of an image for a name as a file system has it.
///
/// # Errors
/// [`RomfsError::Name`] when it is empty, too long, not UTF-8, has a control character (NUL among
/// them), or a part that is empty, `.` or `..`.
pub fn path(name: &[u8]) -> Result<RelPath, RomfsError> {
    let parsed = match std::str::from_utf8(name) {
        Ok(text) => text.parse(),
        Err(_) => Err(PathError::NotUtf8),
    };
    parsed.map_err(|why| RomfsError::Name {
        name: String::from_utf8_lossy(name).escape_debug().to_string(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(name: &[u8], expected: &str) {
        let text = path(name).map_or_else(|error| error.to_string(), |path| path.to_string());
        assert_eq!(text, expected);
    }

    #[test]
    fn names_that_no_board_can_hold_are_named() {
        let no = "no file system of a board can hold";
        check("lib/größe.py".as_bytes(), "lib/größe.py");
        check(b"", &format!("{no} ``: the path is empty"));
        check(
            b"a/../b",
            &format!("{no} `a/../b`: the path climbs out of the tree"),
        );
        check(
            b".",
            &format!("{no} `.`: the path has an empty or `.` part"),
        );
        check(
            b"a\0b",
            &format!("{no} `a\\0b`: the path has a control character"),
        );
        check(
            b"a\xff",
            &format!("{no} `a\u{fffd}`: the path is not UTF-8"),
        );
        let long = "x".repeat(256);
        check(
            long.as_bytes(),
            &format!("{no} `{long}`: the path is longer than a file system holds"),
        );
    }

    #[test]
    fn a_file_that_is_a_folder_too_is_refused() {
        let files = ["a", "a/b"].map(|path| (path.parse().unwrap(), Vec::new()));
        insta::assert_snapshot!(
            plain(&files.into()).unwrap_err(),
            @"`a` is a file and a folder at once"
        );
    }

    #[test]
    fn equal_files_share_their_bytes() {
        let same = vec![5; 1000];
        let files: BTreeMap<RelPath, _> = ["a", "b/c", "d"]
            .map(|path| (path.parse().unwrap(), same.clone()))
            .into();
        let image = plain(&files).unwrap();
        assert!(image.len() < 1100, "{}", image.len());
        assert!(
            Rom::read(&image)
                .unwrap()
                .files
                .values()
                .all(|data| *data == &same[..])
        );
    }

    #[test]
    fn damage_that_a_board_would_pass_over_is_an_error() {
        let files = ["a", "b"].map(|path| (path.parse().unwrap(), vec![9; 9]));
        let image = plain(&files.into()).unwrap();
        let at = image.iter().rposition(|byte| *byte == KIND_FILE).unwrap();
        let mut none = image.clone();
        none[at] = 0;
        insta::assert_snapshot!(
            Rom::read(&none).unwrap_err(),
            @"no ROMFS image: a record has kind 0, which means damage, at byte 19"
        );
        insta::assert_snapshot!(
            Rom::read(&image[..image.len() - 1]).unwrap_err(),
            @"no ROMFS image: a record or pointer leads out of what is around it, at byte 4"
        );
    }

    #[test]
    fn nesting_without_end_is_refused_not_followed() {
        let mut inner = Vec::new();
        for _ in 0..100 {
            let mut outer = vec![KIND_DIRECTORY];
            outer.extend(pytheas_release::board::encode_varuint(inner.len() + 2));
            outer.extend([1, b'a']);
            outer.append(&mut inner);
            inner = outer;
        }
        let mut image = pytheas_release::board::MAGIC.to_vec();
        let mut length = pytheas_release::board::encode_varuint(inner.len());
        if (3 + length.len() + inner.len()) % 2 == 1 {
            length.insert(0, 0x80);
        }
        image.extend(length);
        image.extend(inner);
        assert!(
            Rom::read(&image)
                .unwrap_err()
                .to_string()
                .contains("more entries")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _ = Rom::read(&[&pytheas_release::board::MAGIC[..], &bytes].concat());
            let files: BTreeMap<RelPath, _> =
                ["a", "b/c", "b/d"].map(|path| (path.parse().unwrap(), bytes.clone())).into();
            let mut image = plain(&files).unwrap();
            prop_assert_eq!(Rom::read(&image).unwrap().files.len(), 3);
            let at = at.index(image.len());
            image[at] = to;
            let _ = Rom::read(&image);
        }
    }
}
