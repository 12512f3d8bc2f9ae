//! The platform a release is for: operating system, CPU and C library, or a kind of board.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A platform's name, such as `linux-x86_64`, `linux-aarch64-musl` or `micropython-armv7m`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform(String);

/// The Linux platforms there are names for.
const LINUX: &[&str] = &[
    "linux-x86_64",
    "linux-aarch64",
    "linux-armv7",
    "linux-riscv64",
    "linux-x86_64-musl",
    "linux-aarch64-musl",
    "linux-armv7-musl",
];

/// A board's architecture when there is no native code.
const ANY: &str = "any";

/// MicroPython's names of the cores that run each other's native code, the smallest first
/// (`MPY_FEATURE_ARCH_TEST` in `py/persistentcode.h`).
const CORTEX_M: [&str; 5] = ["armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp"];

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform; known are {known} and `micropython-<arch>`", known = LINUX.join(", "))]
pub struct PlatformError(String);

impl Platform {
    /// The platform this program was built for.
    ///
    /// # Errors
    /// [`PlatformError`] where there is no name for it.
    pub fn host() -> Result<Self, PlatformError> {
        let arch = match std::env::consts::ARCH {
            "arm" => "armv7",
            other => other,
        };
        // The host's Python, not this binary, decides the C library; a static musl build of the
        // command on a glibc machine would otherwise pick the wrong wheels.
        let libc = if std::path::Path::new("/etc/alpine-release").exists() {
            "-musl"
        } else {
            ""
        };
        format!("{}-{arch}{libc}", std::env::consts::OS).parse()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The CPU's name, as `uname -m` says it: `x86_64`, `aarch64`, `armv7`.
    pub fn arch(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or("")
    }

    /// Whether it is a kind of MicroPython board.
    pub fn is_board(&self) -> bool {
        self.0.starts_with("micropython-")
    }

    /// The platforms whose releases run here, the best first: this one; for a board also what was
    /// compiled for smaller Cortex-M cores, and what holds no native code (`micropython-any`).
    pub fn runs(&self) -> impl Iterator<Item = Self> {
        let arch = self.0.strip_prefix("micropython-");
        let core = CORTEX_M.iter().position(|core| Some(*core) == arch);
        let smaller = CORTEX_M[..core.unwrap_or(0)].iter().rev();
        let any = arch.filter(|arch| *arch != ANY).map(|_| &ANY);
        let boards = smaller.chain(any).map(|arch| format!("micropython-{arch}"));
        std::iter::once(self.0.clone()).chain(boards).map(Self)
    }

    /// Whether programs there link to musl instead of glibc.
    pub fn is_musl(&self) -> bool {
        self.0.ends_with("-musl")
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let board = text.strip_prefix("micropython-").is_some_and(|arch| {
            !arch.is_empty() && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        if board || LINUX.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PlatformError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.0
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_named_not_guessed() {
        assert_eq!("linux-armv7".parse::<Platform>().unwrap().arch(), "armv7");
        assert!("linux-x86_64-musl".parse::<Platform>().unwrap().is_musl());
        assert!("micropython-xtensawin".parse::<Platform>().is_ok());
        for wrong in [
            "",
            "linux",
            "linux-z80",
            "micropython-",
            "micropython-../x",
            "windows-x86_64",
        ] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_board_runs_what_smaller_cores_and_every_board_run() {
        let runs = |text: &str| {
            let platform: Platform = text.parse().unwrap();
            platform
                .runs()
                .map(String::from)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            runs("micropython-armv7em"),
            "micropython-armv7em micropython-armv7m micropython-armv6m micropython-any"
        );
        assert_eq!(runs("micropython-x64"), "micropython-x64 micropython-any");
        assert_eq!(runs("micropython-any"), "micropython-any");
        assert_eq!(runs("linux-x86_64"), "linux-x86_64");
    }
}
