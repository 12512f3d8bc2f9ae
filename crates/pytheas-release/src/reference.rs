//! Names of apps and releases: `greenhouse`, `1.1.0`, `greenhouse@1.1.0`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! text_newtype {
    ($name:ident, $what:literal, $allowed:expr) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let first = text
                    .bytes()
                    .next()
                    .is_some_and(|b| b.is_ascii_alphanumeric());
                let allowed: fn(u8) -> bool = $allowed;
                if first && text.len() <= 128 && text.bytes().all(allowed) && !text.ends_with('.') {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError {
                        what: $what,
                        text: text.chars().take(140).collect(),
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// An app's name: letters, digits, `-`, `_`, `.`; at most 128 bytes. It becomes a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A release's version: as a name, with `+` and `!` as PEP 440 has them. Compared by identity only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// A text that is no name or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not {what}: letters, digits, `-`, `_`, `.`, beginning with a letter or digit, at most 128"
)]
pub struct NameError {
    what: &'static str,
    text: String,
}

text_newtype!(Name, "a name", |b| b.is_ascii_alphanumeric()
    || matches!(b, b'-' | b'_' | b'.'));
text_newtype!(Version, "a version", |b| b.is_ascii_alphanumeric()
    || matches!(b, b'-' | b'_' | b'.' | b'+' | b'!'));

impl Version {
    /// Whether this version comes before `other` by PEP 440. Versions without an order (a commit's
    /// hash) are neither older nor newer.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let parsed = |version: &Self| version.0.parse::<crate::Pep440>();
        matches!((parsed(self), parsed(other)), (Ok(this), Ok(other)) if this < other)
    }
}

/// One release of one app on every platform: `greenhouse@1.1.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseRef {
    /// The app.
    pub name: Name,
    /// Its version.
    pub version: Version,
}

impl FromStr for ReleaseRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((name, version)) = text.split_once('@') else {
            return Err(NameError {
                what: "a release such as `greenhouse@1.1.0`",
                text: text.chars().take(140).collect(),
            });
        };
        Ok(Self {
            name: name.parse()?,
            version: version.parse()?,
        })
    }
}

impl TryFrom<String> for ReleaseRef {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ReleaseRef> for String {
    fn from(reference: ReleaseRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for ReleaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_a_name_and_a_version() {
        let reference: ReleaseRef = "greenhouse@1.1.0".parse().unwrap();
        assert_eq!(
            (reference.name.as_str(), reference.version.as_str()),
            ("greenhouse", "1.1.0")
        );
        for wrong in [
            "greenhouse",
            "@1",
            "a@",
            "../x@1",
            "a/b@1",
            "a@1/2",
            "a@..",
            ".a@1",
        ] {
            assert!(wrong.parse::<ReleaseRef>().is_err(), "{wrong}");
        }
    }
}
