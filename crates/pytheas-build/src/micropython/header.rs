//! The header of an `.mpy` file: which boards take it (`py/persistentcode.c`, `mp_raw_code_load`).

use super::{arch::Arch, error::MicroPythonError};

/// Sub-version of native code that MicroPython 1.23 and later take.
const SUB_VERSION: u8 = 3;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Version of the format.
    pub(super) version: u8,
    /// Sub-version; it counts for native code only.
    pub(super) sub_version: u8,
    /// Number of the architecture, 0 when there is no native code.
    pub(super) arch: u8,
}

impl Header {
    /// The header; none when the bytes are no `.mpy` file.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'M', version, flags, _small_int_bits, ..] => Some(Self {
                version: *version,
                sub_version: flags & 3,
                arch: (flags >> 2) & 15,
            }),
            _ => None,
        }
    }

    /// Whether a board of `arch` with `.mpy` version `mpy` takes it.
    pub(super) fn check(
        self,
        file: &str,
        arch: Option<Arch>,
        mpy: u8,
    ) -> Result<(), MicroPythonError> {
        let wrong = |why: String, help: &str| {
            Err(MicroPythonError::Incompatible {
                file: file.to_owned(),
                why,
                help: help.to_owned(),
            })
        };
        if self.version != mpy {
            return wrong(
                format!("it has version {} of the .mpy format, the board reads {mpy}", self.version),
                "take the package's source instead, or a release of it that was made for this version",
            );
        }
        if self.arch == 0 {
            return Ok(());
        }
        let code = Arch::from_number(self.arch);
        let name = code.map_or("an unknown architecture", Arch::name);
        let Some(board) = arch else {
            return wrong(
                format!("it holds native code for {name}, and the target names no board"),
                "set `board = \"…\"` or `platform = \"micropython-<arch>\"` in the target",
            );
        };
        if !code.is_some_and(|code| board.runs(code)) {
            return wrong(
                format!("it holds native code for {name}, the board has {}", board.name()),
                "take the package's source instead, or its file for this architecture",
            );
        }
        if self.sub_version != SUB_VERSION {
            return wrong(
                format!(
                    "its native code has sub-version {}, MicroPython 1.23 and later read {SUB_VERSION}",
                    self.sub_version
                ),
                "build it again with a newer MicroPython",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_code_is_for_its_cpu_and_byte_code_for_all() {
        let armv7m = Arch::from_name("armv7m");
        let check = |bytes: &[u8], arch| Header::read(bytes).unwrap().check("a.mpy", arch, 6);
        assert!(check(b"M\x06\x00\x1f", None).is_ok());
        assert!(check(b"M\x06\x13\x1f", armv7m).is_ok()); // armv6m
        insta::assert_snapshot!(check(b"M\x06\x2b\x1f", armv7m).unwrap_err(), @"`a.mpy` cannot run on the board: it holds native code for xtensawin, the board has armv7m");
        insta::assert_snapshot!(check(b"M\x06\x2b\x1f", None).unwrap_err(), @"`a.mpy` cannot run on the board: it holds native code for xtensawin, and the target names no board");
        insta::assert_snapshot!(check(b"M\x05\x00\x1f", None).unwrap_err(), @"`a.mpy` cannot run on the board: it has version 5 of the .mpy format, the board reads 6");
        insta::assert_snapshot!(check(b"M\x06\x12\x1f", armv7m).unwrap_err(), @"`a.mpy` cannot run on the board: its native code has sub-version 2, MicroPython 1.23 and later read 3");
        assert_eq!(Header::read(b"C\x06\x00\x1f"), None);
        assert_eq!(Header::read(b"M\x06"), None);
    }
}
