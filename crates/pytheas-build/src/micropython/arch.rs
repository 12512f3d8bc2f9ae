//! Boards by name: their port, the native code they run, and the platforms of their images.
//!
//! `boards.toml` is made from the board folders of MicroPython's source. A name with a variant
//! behind `-` (`ESP32_GENERIC-SPIRAM`, `RPI_PICO2-RISCV`) is known by its board.

use std::{collections::BTreeMap, sync::LazyLock};

use pytheas_board::mpy::Arch;
use pytheas_project::closest;
use pytheas_release::Platform;
use serde::Deserialize;

use super::error::MicroPythonError;

/// Stands for the architecture in the platform of images without native code.
const ANY: &str = "any";

/// The platform of an image with native code of `arch`; without an architecture, of one with none.
pub fn platform(arch: Option<Arch>) -> Platform {
    let name = arch.map_or(ANY, Arch::name);
    format!("micropython-{name}")
        .parse()
        .expect("names of architectures make platforms")
}

/// The architecture that a platform names; none in `micropython-any`.
///
/// # Errors
/// When it is no platform of boards.
pub fn arch_of(platform: &Platform) -> Result<Option<Arch>, MicroPythonError> {
    let name = platform.as_str().strip_prefix("micropython-");
    let found = match name {
        Some(ANY) => Some(None),
        Some(name) => Arch::from_name(name).map(Some),
        None => None,
    };
    found.ok_or_else(|| MicroPythonError::Platform {
        platform: platform.to_string(),
    })
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
    fn a_platform_names_an_architecture_or_any() {
        let of = |text: &str| arch_of(&text.parse().unwrap());
        assert_eq!(of("micropython-any").unwrap(), None);
        assert_eq!(of("micropython-armv7m").unwrap().unwrap().name(), "armv7m");
        assert!(of("micropython-z80").is_err());
        assert!(of("linux-x86_64").is_err());
    }
}
