//! Architectures as `.mpy` files number and `mpy-cross -march` names them.

use std::fmt;

/// An architecture of native code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "the names are MicroPython's own and say all there is"
)]
pub enum Arch {
    X86 = 1,
    X64,
    Armv6,
    Armv6m,
    Armv7m,
    Armv7em,
    Armv7emsp,
    Armv7emdp,
    Xtensa,
    Xtensawin,
    Rv32imc,
    Rv64imc,
}

/// In the order of their numbers, which begin at 1.
const ALL: [(Arch, &str); 12] = [
    (Arch::X86, "x86"),
    (Arch::X64, "x64"),
    (Arch::Armv6, "armv6"),
    (Arch::Armv6m, "armv6m"),
    (Arch::Armv7m, "armv7m"),
    (Arch::Armv7em, "armv7em"),
    (Arch::Armv7emsp, "armv7emsp"),
    (Arch::Armv7emdp, "armv7emdp"),
    (Arch::Xtensa, "xtensa"),
    (Arch::Xtensawin, "xtensawin"),
    (Arch::Rv32imc, "rv32imc"),
    (Arch::Rv64imc, "rv64imc"),
];

impl Arch {
    /// The architecture of this number; inner none for 0, outer none for an unknown one.
    pub fn from_number(number: u8) -> Option<Option<Self>> {
        match usize::from(number).checked_sub(1) {
            None => Some(None),
            Some(at) => ALL.get(at).map(|(arch, _)| Some(*arch)),
        }
    }

    /// The architecture that `mpy-cross -march` calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.iter()
            .find(|(_, known)| *known == name)
            .map(|(arch, _)| *arch)
    }

    /// What `mpy-cross -march` calls it.
    pub fn name(self) -> &'static str {
        ALL[self as usize - 1].1
    }

    /// Whether a board of this architecture runs code of `code`. Thumb boards run that of every smaller
    /// Thumb architecture, all others only their own (`MPY_FEATURE_ARCH_TEST`).
    pub fn runs(self, code: Self) -> bool {
        let thumb = Self::Armv6m..=Self::Armv7emdp;
        self == code || (thumb.contains(&self) && thumb.contains(&code) && code <= self)
    }

    /// Bits of a small integer on boards of this architecture, in MicroPython's usual object model.
    pub fn small_int_bits(self) -> u8 {
        if matches!(self, Self::X64 | Self::Rv64imc) {
            63
        } else {
            31
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
