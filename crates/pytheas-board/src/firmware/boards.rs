//! Boards whose ROMFS partition has an address that MicroPython's sources fix (1.25).

/// A board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// The board, as MicroPython's build calls it.
    pub name: &'static str,
    /// Start of its first ROMFS partition.
    pub address: u32,
    /// The partition's length in bytes.
    pub size: u32,
}

/// The boards. ESP32 boards are not here: their firmware has a partition table. The RP2 and most other
/// boards are not, because their stock firmware has no ROMFS partition: who builds firmware with one
/// (`MICROPY_HW_ROMFS_BYTES`) knows its address.
pub const BOARDS: [Board; 5] = [
    // ports/stm32/boards/*/*.ld, FLASH_ROMFS
    Board {
        name: "ARDUINO_GIGA",
        address: 0x90b0_0000,
        size: 0x40_0000,
    },
    Board {
        name: "ARDUINO_NICLA_VISION",
        address: 0x90b0_0000,
        size: 0x40_0000,
    },
    Board {
        name: "ARDUINO_PORTENTA_H7",
        address: 0x90b0_0000,
        size: 0x40_0000,
    },
    Board {
        name: "PYBD_SF2",
        address: 0x9010_0000,
        size: 0x10_0000,
    },
    Board {
        name: "PYBD_SF6",
        address: 0x9000_0000,
        size: 0x20_0000,
    },
];

impl Board {
    /// The board of this name, however it is capitalised.
    pub fn named(name: &str) -> Option<&'static Self> {
        BOARDS
            .iter()
            .find(|board| board.name.eq_ignore_ascii_case(name))
    }
}

pub(super) fn names() -> String {
    BOARDS.map(|board| format!("`{}`", board.name)).join(", ")
}
