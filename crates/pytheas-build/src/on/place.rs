//! `--on`: which machine.

use std::{fmt, path::PathBuf, str::FromStr};

/// A machine that runs Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This machine's Python, with the project's sources.
    CPython,
    /// MicroPython's port for this machine: the one that is found, or this program.
    Unix(Option<PathBuf>),
    /// MicroPython's port for WebAssembly, in node.
    Wasm,
    /// An emulated Cortex-M3 board.
    Qemu,
    /// A board on a serial port (`/dev/ttyACM0`) or behind a TCP address (`tcp://host:port`).
    Line(String),
}

/// A text that names no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no machine; write `cpython`, `unix` (or `unix:PROGRAM`), `wasm`, `qemu`, a serial port such as `/dev/ttyACM0`, or `tcp://HOST:PORT`"
)]
pub struct ParsePlaceError(String);

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_line = text.starts_with('/')
            || ["tcp://", "rfc2217://", "COM"]
                .iter()
                .any(|start| text.starts_with(start));
        Ok(match text {
            "cpython" => Self::CPython,
            "unix" => Self::Unix(None),
            "wasm" => Self::Wasm,
            "qemu" => Self::Qemu,
            _ if is_line => Self::Line(text.to_owned()),
            _ => match text.strip_prefix("unix:") {
                Some(program) if !program.is_empty() => Self::Unix(Some(program.into())),
                _ => return Err(ParsePlaceError(text.chars().take(120).collect())),
            },
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CPython => f.write_str("cpython"),
            Self::Unix(None) => f.write_str("unix"),
            Self::Unix(Some(program)) => write!(f, "unix:{}", program.display()),
            Self::Wasm => f.write_str("wasm"),
            Self::Qemu => f.write_str("qemu"),
            Self::Line(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_as_they_are_shown() {
        for text in [
            "cpython",
            "unix",
            "unix:/opt/micropython",
            "wasm",
            "qemu",
            "/dev/ttyACM0",
            "tcp://10.0.0.7:2217",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "esp32", "unix:", "ttyACM0"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
