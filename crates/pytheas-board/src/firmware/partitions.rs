//! The partition table of ESP32 chips.
//!
//! ```text
//! entry (32 bytes): aa 50   type   subtype   offset (u32)   size (u32)   label (16, NUL-padded)   flags (u32)
//! checksum entry:   eb eb   ff × 14   MD5 of all entries before it
//! ```
//! Little-endian; 3 KiB at flash offset 0x8000 unless configured otherwise, rest filled with ff.
//! Source: ESP-IDF's manual, "Partition Tables" (5.x).

use md5::{Digest, Md5};
use serde::Serialize;

/// Length of the table in bytes, with what fills it up.
pub(super) const TABLE_SIZE: usize = 0xc00;
const ENTRY: usize = 32;
const MAGIC: [u8; 2] = [0xaa, 0x50];
const MD5_MAGIC: [u8; 16] = [
    0xeb, 0xeb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];
/// Partition type of data.
pub(super) const TYPE_DATA: u8 = 1;
/// Partition type of programs.
pub(super) const TYPE_APP: u8 = 0;
/// The subtype MicroPython gives its ROMFS partition (`ports/esp32/partitions-4MiB-romfs.csv`).
pub(super) const SUBTYPE_ROMFS: u8 = 0x8f;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its name.
    pub label: String,
    /// 0: a program, 1: data.
    pub kind: u8,
    /// What program or data.
    pub subtype: u8,
    /// Where it begins in the flash.
    pub offset: u32,
    /// Its length in bytes.
    pub size: u32,
    /// Bit 0: encrypted; 1: read-only.
    pub flags: u32,
}

impl Partition {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.size)
    }
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionTable {
    /// Its entries, in their order.
    pub partitions: Vec<Partition>,
    /// Whether it has a checksum, as all but very old ones do.
    pub checksum: bool,
}

impl PartitionTable {
    /// Parses the table at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes
            .get(..TABLE_SIZE)
            .ok_or("the partition table is cut off")?;
        let mut table = Self {
            partitions: Vec::new(),
            checksum: false,
        };
        for (number, entry) in bytes.chunks_exact(ENTRY).enumerate() {
            if entry.iter().all(|byte| *byte == 0xff) {
                break;
            }
            if let Some(sum) = entry.strip_prefix(&MD5_MAGIC) {
                if Md5::digest(&bytes[..number * ENTRY])[..] != *sum {
                    return Err("the checksum of the partition table is wrong");
                }
                table.checksum = true;
                break;
            }
            let word = |at: usize| {
                let word = entry.get(at..at + 4).and_then(|word| word.try_into().ok());
                word.map_or(0, u32::from_le_bytes)
            };
            if !entry.starts_with(&MAGIC) {
                return Err("an entry of the partition table has not the magic number");
            }
            let label = entry.get(12..28).unwrap_or_default();
            let end = label
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(label.len());
            // A table that is written anew has to have the same labels.
            let label = std::str::from_utf8(&label[..end])
                .map_err(|_| "a label of the partition table is not UTF-8")?;
            table.partitions.push(Partition {
                label: label.to_owned(),
                kind: entry[2],
                subtype: entry[3],
                offset: word(4),
                size: word(8),
                flags: word(28),
            });
        }
        if table.partitions.is_empty() {
            return Err("the partition table is empty");
        }
        Ok(table)
    }

    /// The table as it stands in the flash; none when it has more entries than fit.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(TABLE_SIZE);
        for partition in &self.partitions {
            out.extend(MAGIC);
            out.extend([partition.kind, partition.subtype]);
            out.extend(partition.offset.to_le_bytes());
            out.extend(partition.size.to_le_bytes());
            let mut label = [0; 16];
            let text = partition.label.as_bytes();
            label.get_mut(..text.len())?.copy_from_slice(text);
            out.extend(label);
            out.extend(partition.flags.to_le_bytes());
        }
        if self.checksum {
            let sum = Md5::digest(&out);
            out.extend(MD5_MAGIC);
            out.extend(sum);
        }
        // One entry of ff must be left: it is the end.
        if out.len() > TABLE_SIZE - ENTRY {
            return None;
        }
        out.resize(TABLE_SIZE, 0xff);
        Some(out)
    }

    /// The partition of this label.
    pub fn find(&self, label: &str) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.label == label)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tables_round_trip_and_no_bytes_panic(
            labels in prop::collection::vec("[a-z0-9_]{1,16}", 1..40),
            checksum: bool,
            bytes: Vec<u8>,
            at: prop::sample::Index,
        ) {
            let partitions = labels.into_iter().zip(1..).map(|(label, number)| Partition {
                label, kind: 1, subtype: 0x8f, offset: number << 16, size: 0x1_0000, flags: 0,
            });
            let table = PartitionTable { partitions: partitions.collect(), checksum };
            let mut encoded = table.encode().unwrap();
            prop_assert_eq!(PartitionTable::parse(&encoded).unwrap(), table);
            let at = at.index(64);
            encoded[at] ^= 1;
            prop_assert!(!checksum || PartitionTable::parse(&encoded).is_err() || at >= 40);
            let _ = PartitionTable::parse(&[&bytes[..], &[0xaa; TABLE_SIZE]].concat());
        }
    }
}
