//! Where the file system of an RP2 board lies: MicroPython says so in its binary information.
//!
//! ```text
//! marker 0x7188ebf2, start and end of a list of pointers, mapping table, marker 0xe71aa390
//! entry: type (u16; 7: a block device), tag (u16; "MP"), name, address, size, extra, flags
//! ```
//! Source: `pico/binary_info/structure.h` of the Pico SDK and `ports/rp2/rp2_flash.c`. A ROMFS partition,
//! where there is one, ends where that file system begins.

use std::{collections::BTreeMap, ops::Range};

const FLASH: u32 = 0x1000_0000;
const MARKER_START: u32 = 0x7188_ebf2;
const MARKER_END: u32 = 0xe71a_a390;
const TYPE_BLOCK_DEVICE: u32 = 7;
const TAG_MICROPYTHON: u32 = 0x504d;

/// The place of MicroPython's file system in this firmware; none where it does not say.
pub(super) fn file_system(parts: &[(u32, Vec<u8>)]) -> Option<Range<u64>> {
    let parts: BTreeMap<u32, &[u8]> = parts.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    let word = |at: u32| {
        let (start, bytes) = parts.range(..=at).next_back()?;
        let from = usize::try_from(at - start).ok()?;
        let word = bytes.get(from..from.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(word))
    };
    // In the first 256 bytes behind the second stage (RP2040) or of the program (RP2350).
    let header = (FLASH..FLASH + 0x400)
        .step_by(4)
        .find(|at| word(*at) == Some(MARKER_START) && word(at + 16) == Some(MARKER_END))?;
    let (first, end) = (word(header + 4)?, word(header + 8)?);
    let entries = (first..end).step_by(4).take(1024).filter_map(word);
    entries.into_iter().find_map(|entry| {
        let kind = word(entry)?;
        if kind != TYPE_BLOCK_DEVICE | TAG_MICROPYTHON << 16 {
            return None;
        }
        let address = word(entry.checked_add(8)?)?;
        let size = word(entry.checked_add(12)?)?;
        Some(u64::from(address)..u64::from(address) + u64::from(size))
    })
}
