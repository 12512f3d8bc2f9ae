//! Bringing an app to a board over the link: as files ([`tree`]), as an image in a ROMFS partition
//! ([`rom`]), or as a signed image for a board that was set up ([`slots`]).
//!
//! Only what differs is sent, everything is read back and compared by SHA-256, and what runs now is
//! not touched before its successor is whole.

mod reuse;
pub mod rom;
mod settings;
pub mod setup;
pub mod slots;
pub mod starting;
pub mod tree;

use std::collections::BTreeMap;

use miette::Diagnostic;
use pytheas_release::RelPath;
use serde::Serialize;

use crate::{
    link::{Facts, LinkError},
    mpy::{Header, Incompatible},
};

/// Files of an app, by their path below the root of the board or of the image.
pub type Files = BTreeMap<RelPath, Vec<u8>>;

/// Where an app goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The inactive slot of a board that was set up.
    Slot,
    /// A ROMFS partition.
    Rom,
    /// Files in the board's file system.
    Files,
}

/// What a deploy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployed {
    /// Where it went.
    pub target: Target,
    /// Files (or images) that were written.
    pub written: usize,
    /// Those that were on the board already.
    pub unchanged: usize,
    /// Files that were removed.
    pub removed: usize,
    /// Content that was sent, in bytes, before compression.
    pub sent_bytes: u64,
    /// What the user should know.
    pub remarks: Vec<String>,
}

impl Deployed {
    pub(super) fn nothing(target: Target) -> Self {
        Self {
            target,
            written: 0,
            unchanged: 0,
            removed: 0,
            sent_bytes: 0,
            remarks: Vec::new(),
        }
    }

    /// Whether the board has something to start that it did not have.
    pub fn changed(&self) -> bool {
        self.written + self.removed > 0
    }
}

/// What is told of progress: bytes that were sent, of so many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A deploy that was refused or failed; the board has what it had.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DeployError {
    /// The line or the board failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Link(#[from] LinkError),
    /// It does not fit.
    #[error("the app needs {need} bytes more, and {place} has {free} free")]
    #[diagnostic(
        code(pytheas::board::full),
        help(
            "what is replaced stays until its successor is whole, so both need room: remove files (`pytheas board fs rm`), build without what is not needed, or deploy an image to a ROMFS partition"
        )
    )]
    Full {
        /// Where.
        place: String,
        /// What it takes.
        need: u64,
        /// What there is.
        free: u64,
    },
    /// A name the file system cannot hold.
    #[error("the board cannot hold `{path}`: {why}")]
    #[diagnostic(code(pytheas::board::name), help("rename it, or leave it out"))]
    Name {
        /// The path on the board.
        path: String,
        /// Why not.
        why: String,
    },
    /// The file system takes no files.
    #[error("nothing can be written to {place} on the board: its file system is read-only")]
    #[diagnostic(
        code(pytheas::board::read_only),
        help(
            "`pytheas board fs df` shows the file systems; images go to ROMFS partitions with `--to rom`"
        )
    )]
    ReadOnly {
        /// Where.
        place: String,
    },
    /// Something that is not ours stands where a file or a folder of the app must.
    #[error("`{path}` on the board is in the way, and no deploy has put it there")]
    #[diagnostic(
        code(pytheas::board::in_the_way),
        help(
            "a file cannot stand where a folder is, or a folder where a file is: get it with `pytheas board fs get`, remove it with `pytheas board fs rm`, or rename the app's; nothing was changed"
        )
    )]
    InTheWay {
        /// The path on the board.
        path: String,
    },
    /// A `.mpy` file of another version or architecture.
    #[error("the board cannot load `{path}`")]
    #[diagnostic(
        code(pytheas::board::refused::mpy),
        help("nothing was sent; compile it again for this board")
    )]
    Mpy {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        #[diagnostic_source]
        source: Incompatible,
    },
    /// Something that is no `.mpy` file in spite of its name.
    #[error("`{path}` is no .mpy file")]
    #[diagnostic(
        code(pytheas::board::refused::damaged),
        help("nothing was sent; compile it again")
    )]
    NoMpy {
        /// The file.
        path: String,
    },
    /// The board has no partition for images.
    #[error("the board has no ROMFS partition")]
    #[diagnostic(
        code(pytheas::board::no_rom),
        help(
            "deploy the app as files (`--to files`), or set the board up with `pytheas board setup`"
        )
    )]
    NoRom,
    /// There is one place only, and what runs is in it.
    #[error("the board's only place for an image holds the one that runs")]
    #[diagnostic(
        code(pytheas::board::one_place),
        help(
            "its firmware erases the whole partition at once, so nothing would run if the power went: deploy the app as files (`--to files`)"
        )
    )]
    OnePlace,
    /// A `main.py` that the user wrote stands where ours must.
    #[error("the board has a `/main.py` that Pytheas did not write")]
    #[diagnostic(
        code(pytheas::board::main_py),
        help(
            "`--force` puts ours in its place and keeps the other one as `/main.py.bak`; or deploy the app as files (`--to files`)"
        )
    )]
    MainPy,
    /// A setting that the guard on the board could not use.
    #[error("the setting `{name}` cannot be {value}: it is {wanted}")]
    #[diagnostic(
        code(pytheas::board::setting),
        help(
            "nothing was written; name another value with `pytheas board setup --set {name}=…`, or `--set {name}=null` to remove it"
        )
    )]
    Setting {
        /// The setting.
        name: String,
        /// Its value, as JSON.
        value: String,
        /// What it may be.
        wanted: String,
    },
    /// The board refused the image.
    #[error("the board refused the image: {why}")]
    #[diagnostic(
        code(pytheas::board::refused::image),
        help(
            "publish it with a key that the board trusts (`pytheas board setup --keys`), for this board and with a higher version"
        )
    )]
    Refused {
        /// In the board's words.
        why: String,
    },
    /// It is no image.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] pytheas_release::board::ImageError),
}

impl DeployError {
    /// Whether the board had no memory for it: what ran before may have left its heap in pieces.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Link(error) if error.exception() == Some("MemoryError"))
    }
}

/// Refuses `.mpy` files that this board would not load, before a byte is sent.
///
/// # Errors
/// [`DeployError::Mpy`] or [`DeployError::NoMpy`] for the first.
pub fn check_mpy<'a>(
    facts: &Facts,
    files: impl IntoIterator<Item = (&'a RelPath, &'a [u8])>,
) -> Result<(), DeployError> {
    let Some(board) = facts.board_mpy() else {
        return Ok(());
    };
    for (path, bytes) in files {
        if !path.as_str().ends_with(".mpy") {
            continue;
        }
        // Another version does not parse; what the board says of it is the better answer.
        let other = bytes.len() > 3 && bytes[0] == b'M' && bytes[1] != board.version;
        let path = path.to_string();
        if other {
            let (board, file) = (board.version, bytes[1]);
            let source = Incompatible::Version { board, file };
            return Err(DeployError::Mpy { path, source });
        }
        let Ok(header) = Header::parse(bytes) else {
            return Err(DeployError::NoMpy { path });
        };
        board
            .accepts(&header)
            .map_err(|source| DeployError::Mpy { path, source })?;
    }
    Ok(())
}

/// The error for what the board raised when it was full or cannot be written, else the error as it is.
fn or_full(error: LinkError, place: &str, need: u64, free: u64) -> DeployError {
    let is = |name: &str, number: &str| {
        error.last_line().is_some_and(|line| {
            line.strip_prefix("OSError:")
                .is_some_and(|what| what.contains(name) || what.trim() == number)
        })
    };
    let place = place.to_owned();
    if is("ENOSPC", "28") {
        return DeployError::Full { place, need, free };
    }
    if is("EROFS", "30") {
        return DeployError::ReadOnly { place };
    }
    error.into()
}
