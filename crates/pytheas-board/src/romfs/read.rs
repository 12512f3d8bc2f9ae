//! Reading ROMFS images strictly: what a board would see, and an error where it would see less.
//!
//! Every record lies inside the one around it and every pointer inside the image, so there are no
//! loops; depth and number of entries are bounded. Damage that `vfs.VfsRom` answers by quietly listing
//! fewer files is an error here.

use std::collections::{BTreeMap, BTreeSet};

use pytheas_release::{
    RelPath, Sha256,
    board::{KIND_FILES, MAGIC, varuint},
};

use super::{
    DEPTH_MAX, ENTRIES_MAX, KIND_DATA, KIND_DIRECTORY, KIND_FILE, KIND_POINTER, RomfsError,
};

/// What an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rom<'a> {
    /// The files, whatever folder they are in.
    pub files: BTreeMap<RelPath, &'a [u8]>,
    /// The folders, empty ones among them.
    pub folders: BTreeSet<RelPath>,
    /// The private list of full hashes, if there is one; [`Rom::check`] compares it with the files.
    pub list: Option<Vec<Listed>>,
    /// Length of the image in bytes; behind it may lie the rest of a partition.
    pub size: usize,
}

/// One line of the list of full hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The file.
    pub path: RelPath,
    /// The hash of its content.
    pub sha256: Sha256,
}

impl<'a> Rom<'a> {
    /// Reads the image at the start of `bytes`.
    ///
    /// # Errors
    /// [`RomfsError::Damaged`] at the first thing that is not as it should be, [`RomfsError::Name`] or
    /// [`RomfsError::Clash`] for names no writer would write.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RomfsError> {
        let whole = Reader {
            image: bytes,
            at: 0,
            end: bytes.len(),
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(whole.damaged("it does not begin with the magic bytes d2 cd 31"));
        }
        let mut header = Reader {
            at: MAGIC.len(),
            ..whole
        };
        let length = header.varuint()?;
        let payload = header.take(length)?;
        if payload.end % 2 == 1 {
            return Err(payload.damaged("its size is odd"));
        }
        let mut rom = Self {
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            list: None,
            size: payload.end,
        };
        // Where pointers count from, and where they must end.
        let base = Reader {
            image: &bytes[..payload.end],
            ..payload
        };
        rom.folder(payload, "", 0, base)?;
        Ok(rom)
    }

    /// Compares the private list with the files.
    ///
    /// # Errors
    /// [`RomfsError::Damaged`] when there is no list, or a file is not as listed, or not listed.
    pub fn check(&self) -> Result<(), RomfsError> {
        let wrong = |why| RomfsError::Damaged { why, at: 0 };
        let list = self.list.as_ref();
        let list = list.ok_or_else(|| wrong("it has no list of hashes"))?;
        let same = list.len() == self.files.len()
            && list.iter().zip(&self.files).all(|(listed, (path, data))| {
                listed.path == *path && listed.sha256 == Sha256::of(data)
            });
        if !same {
            return Err(wrong("its files are not those of its list of hashes"));
        }
        Ok(())
    }

    fn folder(
        &mut self,
        mut records: Reader<'a>,
        prefix: &str,
        depth: usize,
        base: Reader<'a>,
    ) -> Result<(), RomfsError> {
        while let Some((kind, mut payload)) = records.record()? {
            if kind == usize::from(KIND_FILES) && depth == 0 && self.list.is_none() {
                self.list = Some(list(payload)?);
                continue;
            }
            let directory = kind == usize::from(KIND_DIRECTORY);
            if !directory && kind != usize::from(KIND_FILE) {
                continue; // data for pointers, padding, and kinds of a later format
            }
            let at = payload.at;
            let length = payload.varuint()?;
            let name = payload.take(length)?.bytes();
            if name.contains(&b'/') {
                return Err(RomfsError::Damaged {
                    why: "a name has a `/` in it",
                    at,
                });
            }
            let path = super::path(&[prefix.as_bytes(), name].concat())?;
            if self.files.contains_key(&path) || self.folders.contains(&path) {
                return Err(RomfsError::Clash { path });
            }
            if self.files.len() + self.folders.len() >= ENTRIES_MAX || depth >= DEPTH_MAX {
                let why = "it has more entries than any tree of ours";
                return Err(RomfsError::Damaged { why, at });
            }
            if directory {
                let prefix = format!("{path}/");
                self.folders.insert(path);
                self.folder(payload, &prefix, depth + 1, base)?;
            } else {
                self.files.insert(path, content(payload, base)?);
            }
        }
        Ok(())
    }
}

/// The data of a file: that of its first data or pointer record, as `extract_data` finds it.
fn content<'a>(mut records: Reader<'a>, base: Reader<'a>) -> Result<&'a [u8], RomfsError> {
    let at = records.at;
    while let Some((kind, mut payload)) = records.record()? {
        if kind == usize::from(KIND_DATA) {
            return Ok(payload.bytes());
        }
        if kind == usize::from(KIND_POINTER) {
            let size = payload.varuint()?;
            let offset = payload.varuint()?;
            let mut target = base;
            target.take(offset)?;
            return Ok(target.take(size)?.bytes());
        }
    }
    Err(RomfsError::Damaged {
        why: "a file has no content",
        at,
    })
}

fn list(mut payload: Reader<'_>) -> Result<Vec<Listed>, RomfsError> {
    let mut listed: Vec<Listed> = Vec::new();
    while payload.at < payload.end {
        let at = payload.at;
        let hash = payload.take(32)?.bytes();
        let sha256: [u8; 32] = hash
            .try_into()
            .map_err(|_| payload.damaged("a hash is cut off"))?;
        let length = payload.varuint()?;
        let path = super::path(payload.take(length)?.bytes())?;
        if listed.last().is_some_and(|last| last.path >= path) {
            let why = "its list of hashes is not sorted";
            return Err(RomfsError::Damaged { why, at });
        }
        listed.push(Listed {
            path,
            sha256: Sha256::from_bytes(sha256),
        });
    }
    Ok(listed)
}

/// A part of the image that is read from front to back.
#[derive(Clone, Copy)]
struct Reader<'a> {
    image: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self, why: &'static str) -> RomfsError {
        RomfsError::Damaged { why, at: self.at }
    }

    fn bytes(&self) -> &'a [u8] {
        self.image.get(self.at..self.end).unwrap_or_default()
    }

    fn varuint(&mut self) -> Result<usize, RomfsError> {
        let (value, rest) =
            varuint(self.bytes()).ok_or_else(|| self.damaged("a number is cut off"))?;
        self.at = self.end - rest.len();
        Ok(value)
    }

    /// The next `length` bytes, which are then behind.
    fn take(&mut self, length: usize) -> Result<Self, RomfsError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end);
        let end =
            end.ok_or_else(|| self.damaged("a record or pointer leads out of what is around it"))?;
        let part = Self { end, ..*self };
        self.at = end;
        Ok(part)
    }

    /// Kind and payload of the next record; none at the end.
    fn record(&mut self) -> Result<Option<(usize, Self)>, RomfsError> {
        if self.at == self.end {
            return Ok(None);
        }
        let start = *self;
        let kind = self.varuint()?;
        if kind == 0 {
            return Err(start.damaged("a record has kind 0, which means damage"));
        }
        let length = self.varuint()?;
        Ok(Some((kind, self.take(length)?)))
    }
}
