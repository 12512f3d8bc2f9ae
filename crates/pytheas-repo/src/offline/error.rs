//! What can be wrong with an offline file, by name.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;

use super::ScanError;

/// An offline file that cannot be used; nothing of it was.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OfflineError {
    /// It cannot be opened.
    #[error("cannot open `{}`", path.display())]
    #[diagnostic(
        code(pytheas::offline::io::open),
        help("is the stick plugged in and mounted, and may this user read it?")
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Reading failed in the middle.
    #[error("cannot read `{member}` in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::offline::io::read),
        help(
            "was the stick pulled out, or does it fail? plug it in again, or copy the file to another one"
        )
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What was read in it.
        member: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something else.
    #[error("`{}` is not a file that `pytheas export` made: {why}", path.display())]
    #[diagnostic(
        code(pytheas::offline::refused::no_export),
        help("make one with `pytheas export --repo DIR|URL` and copy it as it is")
    )]
    NoExport {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It was one once.
    #[error("`{}` is damaged at `{member}`: {why}", path.display())]
    #[diagnostic(
        code(pytheas::offline::refused::damaged),
        help(
            "copy it to the stick again (and eject the stick before pulling it out), or make it again with `pytheas export`"
        )
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The file inside.
        member: String,
        /// What is wrong.
        why: String,
    },
    /// Cut short.
    #[error("`{}` is cut short after {len} bytes", path.display())]
    #[diagnostic(
        code(pytheas::offline::refused::truncated),
        help(
            "the copy was not completed: copy it again, and eject the stick before pulling it out"
        )
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Made by a newer Pytheas.
    #[error("`{}` has format {format}; this version reads format 1", path.display())]
    #[diagnostic(
        code(pytheas::offline::format),
        help("update the agent, or export with the older pytheas")
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl OfflineError {
    pub(super) fn no_export(path: &Path, why: impl Into<String>) -> Self {
        Self::NoExport {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn damaged(path: &Path, member: &str, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            member: member.to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn scan(path: &Path, error: ScanError) -> Self {
        match error {
            ScanError::Read { at, source } => Self::Read {
                path: path.to_owned(),
                member: format!("byte {at}"),
                source,
            },
            ScanError::Truncated { len } => Self::Truncated {
                path: path.to_owned(),
                len,
            },
            ScanError::NoArchive(why) => Self::no_export(path, why),
            ScanError::Wrong { after, why } => Self::damaged(path, &after, why),
        }
    }
}
