//! Which native code a board runs: architectures of `.mpy` files, and boards by name.
//!
//! `boards.toml` is made from the board folders of MicroPython's source. A name with a variant
//! behind `-` (`ESP32_GENERIC-SPIRAM`, `RPI_PICO2-RISCV`) is known by its board.

use std::{collections::BTreeMap, sync::LazyLock};

use pytheas_project::closest;
use pytheas_release::Platform;
use serde::Deserialize;

use super::error::MicroPythonError;

/// The names of the architectures, by their number in the header of an `.mpy` file
/// (`MP_NATIVE_ARCH_*` of `py/persistentcode.h`); 0 is "no native code".
const NAMES: [&str; 13] = [
    "any",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
    "rv64imc",
];

/// Thumb: a board runs what is built for it and for the smaller ones.
const THUMB: std::ops::RangeInclusive<u8> = 4..=8;

/// An architecture of native code in `.mpy` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch(u8);

impl Arch {
    /// The one of this number in an `.mpy` header; none for 0 and for numbers not known.
    pub fn from_number(number: u8) -> Option<Self> {
        (number > 0 && usize::from(number) < NAMES.len()).then_some(Self(number))
    }

    /// The one of this name, as mpy-cross has it: `armv7m`, `xtensawin`.
    pub fn from_name(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| *known == name)?;
        Self::from_number(u8::try_from(number).ok()?)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// Whether a board of this architecture runs native code of `code`
    /// (`MPY_FEATURE_ARCH_TEST`).
    pub fn runs(self, code: Self) -> bool {
        self == code || (THUMB.contains(&self.0) && THUMB.contains(&code.0) && code.0 <= self.0)
    }

    /// The platform of an image that holds such code; without an architecture, of one that holds
    /// none.
    pub fn platform(arch: Option<Self>) -> Platform {
        let name = arch.map_or("any", Self::name);
        format!("micropython-{name}")
            .parse()
            .expect("a known platform")
    }

    /// The architecture that a platform names; none in `micropython-any`.
    ///
    /// # Errors
    /// When it is no platform of boards.
    pub fn of_platform(platform: &Platform) -> Result<Option<Self>, MicroPythonError> {
        let wrong = || MicroPythonError::Platform {
            platform: platform.to_string(),
            known: NAMES.map(|name| format!("`micropython-{name}`")).join(", "),
        };
        let name = platform
            .as_str()
            .strip_prefix("micropython-")
            .ok_or_else(wrong)?;
        if name == NAMES[0] {
            return Ok(None);
        }
        Self::from_name(name).map(Some).ok_or_else(wrong)
    }
}

/// A board that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Its name without a variant: `ESP32_GENERIC_S3`.
    pub name: String,
    /// MicroPython's port for it: `esp32`.
    pub port: String,
    /// The native code it runs; none where firmware has no native code at all.
    pub arch: Option<Arch>,
    /// Whether its firmware has `network` and `socket`.
    pub has_network: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    /// Boards by architecture.
    arch: BTreeMap<String, Vec<String>>,
    /// Those with a network; `*` is all.
    #[serde(default)]
    network: Vec<String>,
}

static BOARDS: LazyLock<BTreeMap<String, Board>> = LazyLock::new(|| {
    let ports: BTreeMap<String, Port> =
        toml::from_str(include_str!("boards.toml")).expect("boards.toml is valid");
    let mut boards = BTreeMap::new();
    for (port, table) in ports {
        for (arch, names) in table.arch {
            for name in names {
                let has_network = table.network.iter().any(|n| *n == "*" || *n == name);
                let board = Board {
                    name: name.clone(),
                    port: port.clone(),
                    arch: Arch::from_name(&arch),
                    has_network,
                };
                boards.insert(name, board);
            }
        }
    }
    boards
});

/// The board of this name, with or without a variant.
///
/// # Errors
/// When the name is not known.
pub fn board(name: &str) -> Result<Board, MicroPythonError> {
    let (plain, variant) = name.split_once('-').unwrap_or((name, ""));
    let Some(found) = BOARDS.get(&plain.to_uppercase()) else {
        return Err(MicroPythonError::Board {
            name: name.to_owned(),
            near: closest(&plain.to_uppercase(), BOARDS.keys().map(String::as_str))
                .map(|near| format!("did you mean `{near}`? else "))
                .unwrap_or_default(),
        });
    };
    let mut board = found.clone();
    if variant.eq_ignore_ascii_case("RISCV") {
        board.arch = Arch::from_name("rv32imc");
    }
    Ok(board)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_known_with_and_without_a_variant() {
        let arch = |name: &str| board(name).unwrap().arch.unwrap().name();
        assert_eq!(arch("ESP32_GENERIC_S3"), "xtensawin");
        assert_eq!(arch("ESP32_GENERIC-SPIRAM"), "xtensawin");
        assert_eq!(arch("esp32_generic_c3"), "rv32imc");
        assert_eq!(arch("RPI_PICO"), "armv6m");
        assert_eq!(arch("RPI_PICO2"), "armv7emsp");
        assert_eq!(arch("RPI_PICO2_W-RISCV"), "rv32imc");
        assert_eq!(arch("PYBV11"), "armv7emsp");
        assert_eq!(arch("ESP8266_GENERIC"), "xtensa");
        assert!(board("RPI_PICO_W").unwrap().has_network);
        assert!(!board("RPI_PICO").unwrap().has_network);
        insta::assert_snapshot!(board("ESP32_GENERIC_S4").unwrap_err(), @"no board `ESP32_GENERIC_S4` is known");
    }

    #[test]
    fn thumb_code_runs_on_larger_cores_of_the_family_only() {
        let arch = |name| Arch::from_name(name).unwrap();
        assert!(arch("armv7emsp").runs(arch("armv6m")));
        assert!(!arch("armv6m").runs(arch("armv7m")));
        assert!(!arch("armv7m").runs(arch("armv6")));
        assert!(!arch("xtensawin").runs(arch("xtensa")));
        assert!(arch("xtensawin").runs(arch("xtensawin")));
    }

    #[test]
    fn a_platform_names_an_architecture_or_any() {
        let of = |text: &str| Arch::of_platform(&text.parse().unwrap());
        assert_eq!(of("micropython-any").unwrap(), None);
        assert_eq!(of("micropython-armv7m").unwrap().unwrap().name(), "armv7m");
        assert!(of("micropython-z80").is_err());
        assert!(of("linux-x86_64").is_err());
    }
}
