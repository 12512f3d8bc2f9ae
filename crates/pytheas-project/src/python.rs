//! Which Python is wanted: `3.11`, `3.11.7` or a specifier such as `>=3.10,<3.13` (PEP 440).

use std::{fmt, path::Path, str::FromStr};

use pep440_rs::{Operator, Version, VersionSpecifiers};
use serde::Deserialize;

/// A set of Python versions, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PythonRequest {
    text: String,
    specifiers: VersionSpecifiers,
}

/// A text that names no Python version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no Python version; write `3.11`, `3.11.7` or a range such as `>=3.10,<3.13`")]
pub struct PythonRequestError(String);

impl PythonRequest {
    /// Whether `version` is wanted.
    pub fn contains(&self, version: &Version) -> bool {
        self.specifiers.contains(version)
    }

    /// The lowest version that the request names, e.g. 3.10 of `>=3.10`.
    pub fn lower_bound(&self) -> Option<Version> {
        self.specifiers
            .iter()
            .filter(|specifier| {
                matches!(
                    specifier.operator(),
                    Operator::GreaterThanEqual
                        | Operator::Equal
                        | Operator::EqualStar
                        | Operator::TildeEqual
                )
            })
            .map(|specifier| specifier.version().clone())
            .max()
    }

    /// The request as PEP 440 specifiers, sorted and in one spelling.
    pub fn normalised(&self) -> String {
        let mut parts: Vec<_> = self.specifiers.iter().map(ToString::to_string).collect();
        parts.sort();
        parts.join(",")
    }

    /// What the file `.python-version` in `dir` asks for: its first line that names a CPython.
    pub fn from_version_file(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(".python-version")).ok()?;
        text.lines()
            .find_map(|line| line.trim().trim_start_matches("cpython-").parse().ok())
    }
}

impl FromStr for PythonRequest {
    type Err = PythonRequestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PythonRequestError(text.chars().take(80).collect());
        let trimmed = text.trim();
        let plain = trimmed.starts_with(|c: char| c.is_ascii_digit());
        let specifiers = if plain {
            let version: Version = trimmed.parse().map_err(|_| wrong())?;
            match version.release() {
                [_, _, _, ..] => format!("=={version}"),
                [_, _] => format!("=={version}.*"),
                _ => return Err(wrong()),
            }
            .parse()
        } else {
            VersionSpecifiers::from_str(trimmed)
        };
        let specifiers: VersionSpecifiers = specifiers.map_err(|_| wrong())?;
        if specifiers.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            text: trimmed.to_owned(),
            specifiers,
        })
    }
}

impl TryFrom<String> for PythonRequest {
    type Error = PythonRequestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for PythonRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, version: &str, expected: bool) {
        let request: PythonRequest = request.parse().unwrap();
        assert_eq!(
            request.contains(&version.parse().unwrap()),
            expected,
            "{request} {version}"
        );
    }

    #[test]
    fn a_minor_version_means_each_of_its_patches() {
        check("3.11", "3.11.7", true);
        check("3.11", "3.12.1", false);
        check("3.11", "3.110.0", false);
        check("3.11.7", "3.11.7", true);
        check("3.11.7", "3.11.8", false);
        check(">=3.10,<3.13", "3.12.4", true);
        check(">=3.10", "3.9.18", false);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for wrong in ["", "three", "3", "pypy3.10", "3.x"] {
            assert!(wrong.parse::<PythonRequest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_lower_bound_is_the_lowest_version_named() {
        let bound = |text: &str| {
            text.parse::<PythonRequest>()
                .unwrap()
                .lower_bound()
                .map(|v| v.to_string())
        };
        assert_eq!(bound(">=3.10,<3.13").as_deref(), Some("3.10"));
        assert_eq!(bound("3.11").as_deref(), Some("3.11"));
        assert_eq!(bound("<3.13"), None);
    }
}
