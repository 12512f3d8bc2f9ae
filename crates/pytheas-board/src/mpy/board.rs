//! Whether a `.mpy` file is right for a board, and what to rebuild it with when it is not.

use miette::Diagnostic;

use super::{Arch, Header, VERSION};

/// What a board says of the files it loads: `sys.implementation._mpy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardMpy {
    /// Version of the format.
    pub version: u8,
    /// Version of the native interface.
    pub sub_version: u8,
    /// The architecture of native code it runs; none when it runs none.
    pub arch: Option<Arch>,
    /// Extensions of the architecture that it has (1.26 and later).
    pub arch_flags: usize,
}

/// A file that a board would refuse, or worse, run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum Incompatible {
    /// Another version of the format.
    #[error("the board reads .mpy version {board}, the file has version {file}")]
    #[diagnostic(
        code(pytheas::board::mpy_incompatible),
        help("rebuild with the mpy-cross of the board's MicroPython: {}", mpy_cross(*board, None))
    )]
    Version {
        /// What the board reads.
        board: u8,
        /// What the file is.
        file: u8,
    },
    /// Native code and another version of the interface to it.
    #[error(
        "the board takes native code of .mpy version {VERSION}.{board}, the file has {VERSION}.{file}"
    )]
    #[diagnostic(
        code(pytheas::board::mpy_sub_version),
        help("rebuild with mpy-cross of {}: `mpy-cross -march={arch}`", releases(*board))
    )]
    SubVersion {
        /// What the board takes.
        board: u8,
        /// What the file is.
        file: u8,
        /// The architecture to rebuild for.
        arch: Arch,
    },
    /// Native code of another architecture.
    #[error("the file has native code for {file}, the board runs {board}")]
    #[diagnostic(
        code(pytheas::board::mpy_arch),
        help("rebuild with `mpy-cross -march={board}`")
    )]
    Arch {
        /// What the board runs.
        board: Arch,
        /// What the file has.
        file: Arch,
    },
    /// Native code and a board that runs none.
    #[error("the file has native code for {file}, the board's firmware runs none")]
    #[diagnostic(
        code(pytheas::board::mpy_no_native),
        help(
            "rebuild without `-march`, and without `@micropython.native`, `viper` and `asm_*` in the source"
        )
    )]
    NoNative {
        /// What the file has.
        file: Arch,
    },
    /// Native code for extensions that the board does not have.
    #[error("the file's native code uses extensions {file:#x} of {arch}, the board has {board:#x}")]
    #[diagnostic(
        code(pytheas::board::mpy_arch_flags),
        help("rebuild with `mpy-cross -march={arch} -march-flags={board}`")
    )]
    ArchFlags {
        /// The architecture.
        arch: Arch,
        /// What the board has.
        board: usize,
        /// What the file uses.
        file: usize,
    },
    /// Constants that the board's small integers cannot hold.
    #[error("the file has integers of up to {file} bits as constants, the board's have {board}")]
    #[diagnostic(
        code(pytheas::board::mpy_small_ints),
        help("rebuild with `mpy-cross -msmall-int-bits={board}`")
    )]
    SmallInts {
        /// What the board has.
        board: u8,
        /// What the file needs.
        file: u8,
    },
}

impl BoardMpy {
    /// From the number that the board answers to `sys.implementation._mpy`; none when it names an
    /// architecture that is not known.
    pub fn from_value(value: u32) -> Option<Self> {
        let [version, feature, flags_low, flags_high] = value.to_le_bytes();
        Some(Self {
            version,
            sub_version: feature & 3,
            arch: Arch::from_number((feature >> 2) & 0x2f)?,
            arch_flags: usize::from(u16::from_le_bytes([flags_low, flags_high])),
        })
    }

    /// Checks a file's header, as the board does when it imports the file.
    ///
    /// # Errors
    /// [`Incompatible`], with what to rebuild with.
    pub fn accepts(&self, header: &Header) -> Result<(), Incompatible> {
        if header.version != self.version {
            return Err(Incompatible::Version {
                board: self.version,
                file: header.version,
            });
        }
        if let Some(file) = header.arch {
            let Some(board) = self.arch else {
                return Err(Incompatible::NoNative { file });
            };
            if !board.runs(file) {
                return Err(Incompatible::Arch { board, file });
            }
            if header.sub_version != self.sub_version {
                let (board_version, file_version) = (self.sub_version, header.sub_version);
                return Err(Incompatible::SubVersion {
                    board: board_version,
                    file: file_version,
                    arch: board,
                });
            }
            if header.arch_flags & !self.arch_flags != 0 {
                return Err(Incompatible::ArchFlags {
                    arch: board,
                    board: self.arch_flags,
                    file: header.arch_flags,
                });
            }
        }
        let board = self.arch.map_or(31, Arch::small_int_bits);
        if header.small_int_bits > board {
            return Err(Incompatible::SmallInts {
                board,
                file: header.small_int_bits,
            });
        }
        Ok(())
    }

    /// The arguments that make `mpy-cross` compile for this board.
    pub fn mpy_cross_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(arch) = self.arch {
            arguments.push(format!("-march={arch}"));
            if self.arch_flags != 0 {
                arguments.push(format!("-march-flags={}", self.arch_flags));
            }
        }
        arguments
    }
}

fn mpy_cross(version: u8, arch: Option<Arch>) -> String {
    let arch = arch
        .map(|arch| format!(" -march={arch}"))
        .unwrap_or_default();
    match version {
        6 => format!("`mpy-cross{arch}` of 1.19 or later"),
        5 => format!("`mpy-cross{arch}` of 1.12 to 1.18"),
        _ => "see `sys.implementation.version` of the board".to_owned(),
    }
}

/// The releases that have this sub-version of format 6.
fn releases(sub_version: u8) -> &'static str {
    match sub_version {
        0 => "MicroPython 1.19",
        1 => "MicroPython 1.20 or 1.21",
        2 => "MicroPython 1.22",
        _ => "MicroPython 1.23 or later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(feature: u8, small_int_bits: u8) -> Header {
        Header::parse(&[b'M', 6, feature, small_int_bits, 1]).unwrap()
    }

    #[track_caller]
    fn check(board: u32, header: Header, expected: &str) {
        let got = BoardMpy::from_value(board).unwrap().accepts(&header);
        let got = got.map_or_else(
            |error| format!("{error}: {}", error.help().unwrap()),
            |()| "ok".to_owned(),
        );
        assert_eq!(got, expected);
    }

    #[test]
    fn a_file_is_checked_as_the_board_would_check_it() {
        let byte_code = header(0x03, 31);
        for board in [2822, 6918, 774] {
            check(board, byte_code, "ok");
        }
        check(6918, header(4 << 2 | 3, 31), "ok"); // armv6m on armv7em
        check(6918, header(5 << 2 | 3, 31), "ok");
        check(
            6918,
            header(8 << 2 | 3, 31),
            "the file has native code for armv7emdp, the board runs armv7em: \
             rebuild with `mpy-cross -march=armv7em`",
        );
        check(
            774,
            header(2 << 2 | 3, 31),
            "the file has native code for x64, the board's firmware runs none: rebuild without \
             `-march`, and without `@micropython.native`, `viper` and `asm_*` in the source",
        );
        check(
            2822,
            header(2 << 2 | 2, 31),
            "the board takes native code of .mpy version 6.3, the file has 6.2: rebuild with \
             mpy-cross of MicroPython 1.23 or later: `mpy-cross -march=x64`",
        );
        check(
            0x0205,
            byte_code,
            "the board reads .mpy version 5, the file has version 6: rebuild with the mpy-cross of \
             the board's MicroPython: `mpy-cross` of 1.12 to 1.18",
        );
        check(2822, header(0x03, 63), "ok");
        check(
            6918,
            header(0x03, 63),
            "the file has integers of up to 63 bits as constants, the board's have 31: \
             rebuild with `mpy-cross -msmall-int-bits=31`",
        );
        check(
            u32::from(11_u8 << 2 | 3) << 8 | 6,
            header(0x40 | 11 << 2 | 3, 31),
            "the file's native code uses extensions 0x1 of rv32imc, the board has 0x0: \
             rebuild with `mpy-cross -march=rv32imc -march-flags=0`",
        );
    }
}
