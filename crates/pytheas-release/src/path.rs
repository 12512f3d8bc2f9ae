//! `RelPath`: a path inside a tree, parsed once at the edge so that nothing can climb out later.

use std::{
    borrow::Borrow,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Longest path in a tree, in bytes: Linux' `PATH_MAX` less room for the slot's own folder.
const MAX_BYTES: usize = 3072;
/// Longest single name in bytes (`NAME_MAX` of every file system we meet).
const MAX_NAME_BYTES: usize = 255;

/// A relative, normalised, UTF-8 path with `/` between its parts.
///
/// Ordered by bytes, as the canonical tree encoding is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// Why a text is not a path inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The empty path.
    #[error("is empty")]
    Empty,
    /// Begins with `/`.
    #[error("is absolute")]
    Absolute,
    /// Has a `..` part.
    #[error("climbs out of the tree")]
    Climbs,
    /// Has an empty or `.` part, or ends with `/`.
    #[error("has an empty or `.` part")]
    NotNormal,
    /// Has a control character, which a line-based encoding cannot hold.
    #[error("has a control character")]
    Control,
    /// Longer than any file system we target holds.
    #[error("is longer than a file system holds")]
    TooLong,
    /// Not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
}

impl RelPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this path lies below `root`.
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path without its last part, unless it has only one.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The relative path `path`, as it is found below a folder.
    ///
    /// # Errors
    /// [`PathError`] when it is not UTF-8, not relative or not normalised.
    pub fn from_path(path: &Path) -> Result<Self, PathError> {
        path.to_str().ok_or(PathError::NotUtf8)?.parse()
    }
}

impl FromStr for RelPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        if text.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        for part in text.split('/') {
            match part {
                "" | "." => return Err(PathError::NotNormal),
                ".." => return Err(PathError::Climbs),
                _ if part.len() > MAX_NAME_BYTES => return Err(PathError::TooLong),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RelPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Result<(), &str>) {
        let got = path
            .parse::<RelPath>()
            .map(|_| ())
            .map_err(|e| e.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "path {path:?}");
    }

    #[test]
    fn tree_paths_stay_inside_the_tree() {
        check("app/main.py", Ok(()));
        check("app/..data", Ok(()));
        check("app/with space", Ok(()));
        check("", Err("is empty"));
        check("/main.py", Err("is absolute"));
        check("app/../../etc", Err("climbs out of the tree"));
        check("app//main.py", Err("has an empty or `.` part"));
        check("./main.py", Err("has an empty or `.` part"));
        check("app/", Err("has an empty or `.` part"));
        check("a\nb", Err("has a control character"));
        check(&"a".repeat(256), Err("is longer than a file system holds"));
    }
}
