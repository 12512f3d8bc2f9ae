//! Ready firmware files with an app image put into them, without a C toolchain: UF2, ESP32 `.bin`
//! and Intel HEX.
//!
//! The firmware must know a place for the image: a ROMFS partition. On ESP32 that place stands in the
//! firmware file's partition table; elsewhere it is an address that the firmware was built with, given
//! by the user or taken from the [`BOARDS`] whose addresses MicroPython's sources fix. Nothing else of
//! the firmware changes, equal input gives equal output, and an image that was put in before is replaced.
//!
//! Read by independent programs in the tests (esptool, esp-idf-defs, intelhex, uf2utils); tried on
//! hardware: nothing.

mod boards;
mod esp32;
mod ihex;
mod partitions;
mod pico;
mod uf2;

pub use boards::{BOARDS, Board};
pub use partitions::{Partition, PartitionTable};

use std::ops::Range;

use miette::Diagnostic;
use serde::Serialize;

/// The label under which MicroPython's ESP32 port looks for its ROMFS partition.
pub const ROMFS_PARTITION: &str = "romfs";

/// What kind of file a firmware is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Blocks for boot loaders that show themselves as a drive (RP2040, RP2350, SAMD, nRF, …).
    Uf2,
    /// Flash content of an ESP32 of any kind: boot loader, partition table, app.
    Esp32,
    /// Intel HEX.
    IntelHex,
}

/// Where the image goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The flash address (UF2, Intel HEX).
    pub address: Option<u32>,
    /// Bytes that the firmware keeps for it there; none: not known, so not checked.
    pub room: Option<u32>,
    /// The partition's label (ESP32); none: [`ROMFS_PARTITION`].
    pub partition: Option<String>,
    /// Add the partition with this many bytes when it is not there (ESP32).
    pub add: Option<u32>,
    /// Make this partition smaller when there is no free space for the added one (ESP32).
    pub take_from: Option<String>,
    /// The UF2 family, when a file is for several.
    pub family: Option<u32>,
}

/// The new firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// The file.
    #[serde(skip)]
    pub bytes: Vec<u8>,
    /// Its kind.
    pub format: Format,
    /// Where the image lies in the flash.
    pub address: u32,
    /// The image's length in bytes.
    pub image_size: u32,
    /// Bytes there are for it, where that is known.
    pub room: Option<u32>,
    /// The partition it lies in (ESP32).
    pub partition: Option<String>,
    /// The UF2 family.
    pub family: Option<u32>,
    /// Whether another image was there before.
    pub replaced: bool,
}

/// A firmware file that cannot take the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum FirmwareError {
    /// None of the formats.
    #[error("the firmware is {why}")]
    #[diagnostic(
        code(pytheas::board::firmware_unknown),
        help(
            "give a `.uf2`, an ESP32 `.bin` with boot loader and partition table, or a `.hex` file"
        )
    )]
    Unknown {
        /// What it is instead.
        why: &'static str,
    },
    /// A damaged file.
    #[error("damaged firmware: {why}, at byte {at:#x}")]
    #[diagnostic(
        code(pytheas::board::firmware_damaged),
        help("download the file again")
    )]
    Damaged {
        /// What is wrong.
        why: String,
        /// Where in the file.
        at: usize,
    },
    /// No address.
    #[error("where the image goes is not known")]
    #[diagnostic(
        code(pytheas::board::firmware_no_address),
        help(
            "give `--address`: the start of the ROMFS partition the firmware was built with (`mpremote romfs query` shows whether a board has one); or `--board`, one of {boards}"
        )
    )]
    NoAddress {
        /// The boards that are known.
        boards: String,
    },
    /// An option of another format.
    #[error("`{option}` means nothing for {format}")]
    #[diagnostic(
        code(pytheas::board::firmware_option),
        help("UF2 and Intel HEX take an address, ESP32 files a partition")
    )]
    Option {
        /// The option.
        option: &'static str,
        /// The file's format.
        format: &'static str,
    },
    /// An address that the flash cannot be erased at.
    #[error("the address {address:#x} is not a multiple of {step:#x}")]
    #[diagnostic(
        code(pytheas::board::firmware_alignment),
        help("a partition begins where a block of the flash that is erased at once begins")
    )]
    Misaligned {
        /// The address.
        address: u32,
        /// What it must be a multiple of.
        step: u32,
    },
    /// The firmware itself lies there.
    #[error(
        "the image would lie at {:#x} to {:#x}, where {what} lies ({:#x} to {:#x})",
        image.start, image.end, there.start, there.end
    )]
    #[diagnostic(
        code(pytheas::board::firmware_overlap),
        help(
            "only an earlier image is replaced: check address or partition, or make the image smaller"
        )
    )]
    Overlap {
        /// The image's place.
        image: Range<u64>,
        /// What it would overwrite.
        there: Range<u64>,
        /// Whose it is.
        what: String,
    },
    /// Too large.
    #[error("the image has {size} bytes, {what} has room for {room}")]
    #[diagnostic(
        code(pytheas::board::firmware_room),
        help(
            "leave files out of the image, compile them (`.mpy` is about a fifth of `.py`), or use firmware with a larger partition"
        )
    )]
    TooLarge {
        /// The image's size.
        size: u64,
        /// The room.
        room: u64,
        /// What has the room.
        what: String,
    },
    /// No such partition.
    #[error("the firmware's partition table has no data partition `{name}`")]
    #[diagnostic(
        code(pytheas::board::firmware_partition),
        help(
            "it has {there}; name one with `--partition`, or add one with `--add-partition SIZE`"
        )
    )]
    NoPartition {
        /// What was asked for.
        name: String,
        /// The partitions there are.
        there: String,
    },
    /// A partition cannot be added.
    #[error("no partition `{name}` of {size:#x} bytes can be added: {why}")]
    #[diagnostic(code(pytheas::board::firmware_add), help("{help}"))]
    CannotAdd {
        /// Its label.
        name: String,
        /// Its size.
        size: u32,
        /// Why not.
        why: String,
        /// What to do.
        help: String,
    },
    /// No such UF2 family.
    #[error("the UF2 file has no blocks for family {family:#010x}")]
    #[diagnostic(
        code(pytheas::board::firmware_no_family),
        help("it has blocks for {families}; leave `--family` out where there is only one")
    )]
    NoFamily {
        /// The family.
        family: u32,
        /// The families there are.
        families: String,
    },
    /// More than one UF2 family.
    #[error("the UF2 file is for several families: {families}")]
    #[diagnostic(
        code(pytheas::board::firmware_families),
        help("name the one the image is for with `--family`")
    )]
    Families {
        /// The families.
        families: String,
    },
}

/// The format of a file, by its content.
///
/// # Errors
/// [`FirmwareError::Unknown`], with what it is instead where that can be seen.
pub fn format(firmware: &[u8]) -> Result<Format, FirmwareError> {
    if uf2::is(firmware) {
        return Ok(Format::Uf2);
    }
    if ihex::is(firmware) {
        return Ok(Format::IntelHex);
    }
    if esp32::is(firmware) {
        return Ok(Format::Esp32);
    }
    let why = match firmware {
        [] => "empty",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file, which is for debuggers",
        [b'D', b'f', b'u', b'S', b'e', ..] => {
            "a DFU file, which is not supported: take the `.hex` one"
        }
        [0xd2, 0xcd, 0x31, ..] => "a ROMFS image: image and firmware are exchanged",
        [0xe9, ..] => "the app of an ESP32 alone, without boot loader and partition table",
        _ => "none of UF2, ESP32 flash content and Intel HEX",
    };
    Err(FirmwareError::Unknown { why })
}

/// Puts `image` into `firmware`.
///
/// # Errors
/// [`FirmwareError`]; nothing is ever overwritten but an earlier image.
pub fn inject(
    firmware: &[u8],
    image: &[u8],
    placement: &Placement,
) -> Result<Injected, FirmwareError> {
    match format(firmware)? {
        Format::Uf2 => uf2::inject(firmware, image, placement),
        Format::IntelHex => ihex::inject(firmware, image, placement),
        Format::Esp32 => esp32::inject(firmware, image, placement),
    }
}

/// The address of a placement for a format that needs one.
fn address(placement: &Placement, format: &'static str) -> Result<u32, FirmwareError> {
    let foreign = [
        ("--partition", placement.partition.is_some()),
        ("--add-partition", placement.add.is_some()),
        ("--take-from", placement.take_from.is_some()),
    ];
    for (option, given) in foreign {
        if given {
            return Err(FirmwareError::Option { option, format });
        }
    }
    placement.address.ok_or_else(|| FirmwareError::NoAddress {
        boards: boards::names(),
    })
}

/// The bytes an image takes from `address` on, checked against the room and the address space.
fn place(image: &[u8], address: u32, room: Option<u32>) -> Result<Range<u64>, FirmwareError> {
    let size = image.len() as u64;
    if let Some(room) = room
        && size > u64::from(room)
    {
        let what = format!("the partition at {address:#x}");
        return Err(FirmwareError::TooLarge {
            size,
            room: room.into(),
            what,
        });
    }
    let end = u64::from(address) + size;
    if end > 1 << 32 {
        let room = (1 << 32) - u64::from(address);
        let what = format!("the address space behind {address:#x}");
        return Err(FirmwareError::TooLarge { size, room, what });
    }
    Ok(u64::from(address)..end)
}

/// Length of the whole ROMFS image that begins at `address` in these sorted parts of a flash; none when
/// there is none, or not only one.
fn old_image(parts: &[(u32, Vec<u8>)], address: u32) -> Option<usize> {
    let mut bytes: Vec<u8> = Vec::new();
    let first = parts.iter().position(|(start, _)| *start == address)?;
    for (start, part) in &parts[first..] {
        if u64::from(*start) != u64::from(address) + bytes.len() as u64 {
            break;
        }
        bytes.extend(part);
    }
    crate::romfs::Rom::read(&bytes).ok().map(|rom| rom.size)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests;
