//! Flash content of ESP32 chips, as MicroPython publishes it: boot loader, partition table, program.
//!
//! A file begins at the flash offset of the boot loader (0x1000 on ESP32 and ESP32-S2, 0x2000 on C5 and
//! P4, else 0), or at 0 with ff before the boot loader. Boot loader and program are never changed, so the
//! hashes inside them stay right; only the table and the partition are.

use super::{
    FirmwareError, Format, Injected, Placement, ROMFS_PARTITION,
    partitions::{Partition, PartitionTable, SUBTYPE_ROMFS, TABLE_SIZE, TYPE_APP, TYPE_DATA},
};

/// First byte of a boot loader or program.
const IMAGE_MAGIC: u8 = 0xe9;
/// Where the table is looked for: the default first, then wherever it may have been configured to.
const TABLE_OFFSETS: [u32; 1] = [0x8000];
/// The largest flash there is for these chips, in bytes.
const FLASH_MAX: u32 = 0x800_0000;
const SECTOR: u32 = 0x1000;
/// Added partitions begin and end at pages that the chip can map into memory.
const PAGE: u32 = 0x1_0000;

/// A parsed file.
struct Flash<'a> {
    file: &'a [u8],
    /// The flash offset of the file's first byte.
    base: u32,
    /// The flash offset of the table.
    table_at: u32,
    table: PartitionTable,
    /// Size of the flash by the boot loader's header, where that says it.
    size: Option<u32>,
}

pub(super) fn is(firmware: &[u8]) -> bool {
    find(firmware).is_some()
}

/// Base and offset of the table; none when there is no boot loader or no table.
fn find(firmware: &[u8]) -> Option<(u32, u32)> {
    let boot = [0, 0x1000, 0x2000].into_iter().find(|at| {
        let before = firmware
            .get(..*at)
            .is_some_and(|before| before.iter().all(|byte| *byte == 0xff));
        before && firmware.get(*at) == Some(&IMAGE_MAGIC)
    })?;
    let base = if boot > 0 {
        0
    } else {
        // The extended header names the chip.
        match firmware.get(12..14)? {
            [0 | 2, 0] => 0x1000,
            [18 | 23, 0] => 0x2000,
            _ => 0,
        }
    };
    let configured = (base..0x2_0000).step_by(SECTOR as usize);
    let table = TABLE_OFFSETS.into_iter().chain(configured).find(|at| {
        let entry = at
            .checked_sub(base)
            .and_then(|at| firmware.get(at as usize..));
        entry.is_some_and(|entry| entry.starts_with(&[0xaa, 0x50]) && entry.len() >= TABLE_SIZE)
    })?;
    Some((base, table))
}

impl<'a> Flash<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, FirmwareError> {
        let why = "none of UF2, ESP32 flash content and Intel HEX";
        let (base, table_at) = find(file).ok_or(FirmwareError::Unknown { why })?;
        let at = (table_at - base) as usize;
        let table = PartitionTable::parse(file.get(at..).unwrap_or_default()).map_err(|why| {
            FirmwareError::Damaged {
                why: why.to_owned(),
                at,
            }
        })?;
        let boot = file
            .iter()
            .position(|byte| *byte == IMAGE_MAGIC)
            .unwrap_or(0);
        let size = file.get(boot + 3).and_then(|byte| match byte >> 4 {
            power @ 0..=7 => Some(0x10_0000 << power),
            _ => None,
        });
        Ok(Self {
            file,
            base,
            table_at,
            table,
            size,
        })
    }

    /// The bytes of the file that lie in a partition.
    fn content(&self, partition: &Partition) -> &'a [u8] {
        let from = partition.offset.saturating_sub(self.base) as usize;
        let to = from
            .saturating_add(partition.size as usize)
            .min(self.file.len());
        self.file.get(from..to).unwrap_or_default()
    }

    fn names(&self) -> String {
        let names = self
            .table
            .partitions
            .iter()
            .map(|partition| format!("`{}`", partition.label));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Adds a partition for the image: into free space, or cut off the end of another partition.
    fn add(
        &mut self,
        name: &str,
        size: u32,
        from: Option<&str>,
    ) -> Result<Partition, FirmwareError> {
        let cannot = |why: &str, help: &str| FirmwareError::CannotAdd {
            name: name.to_owned(),
            size,
            why: why.to_owned(),
            help: help.to_owned(),
        };
        let Some(rounded) = size.checked_next_multiple_of(PAGE).filter(|size| *size > 0) else {
            return Err(cannot("that is no size", "give its size, such as `256K`"));
        };
        if name.is_empty() || name.len() > 15 {
            return Err(cannot(
                "its name is too long",
                "take a name of 1 to 15 bytes",
            ));
        }
        let offset = match from {
            Some(from) => self.take_from(from, rounded, &cannot)?,
            None => self.free(rounded).ok_or_else(|| {
                cannot(
                    "there is no free space between the partitions",
                    "cut it off another one: `--take-from factory` where the program leaves room, else `--take-from vfs`",
                )
            })?,
        };
        let partition = Partition {
            label: name.to_owned(),
            kind: TYPE_DATA,
            subtype: SUBTYPE_ROMFS,
            offset,
            size: rounded,
            flags: 0,
        };
        self.table.partitions.push(partition.clone());
        if self.table.encode().is_none() {
            return Err(cannot(
                "the partition table is full",
                "name a partition that is there",
            ));
        }
        Ok(partition)
    }

    /// The lowest free place behind the first program.
    fn free(&self, size: u32) -> Option<u32> {
        let end = u64::from(self.size?);
        let first = self
            .table
            .partitions
            .iter()
            .filter(|partition| partition.kind == TYPE_APP);
        let mut at = first
            .map(Partition::end)
            .min()?
            .next_multiple_of(u64::from(PAGE));
        while at + u64::from(size) <= end {
            let taken = at..at + u64::from(size);
            let partitions = self.table.partitions.iter();
            let there = partitions.filter(|partition| {
                super::overlap(&taken, &(u64::from(partition.offset)..partition.end()))
            });
            match there.map(Partition::end).max() {
                None => return u32::try_from(at).ok(),
                Some(end) => at = end.next_multiple_of(u64::from(PAGE)),
            }
        }
        None
    }

    fn take_from(
        &mut self,
        from: &str,
        size: u32,
        cannot: &impl Fn(&str, &str) -> FirmwareError,
    ) -> Result<u32, FirmwareError> {
        let names = self.names();
        let Some(donor) = self.table.find(from).cloned() else {
            let why = format!("there is no partition `{from}` to take from");
            return Err(cannot(&why, &format!("it has {names}")));
        };
        let end = donor.end() / u64::from(PAGE) * u64::from(PAGE);
        let start = end
            .checked_sub(u64::from(size))
            .and_then(|start| u32::try_from(start).ok());
        let Some(start) = start.filter(|start| *start > donor.offset) else {
            let why = format!("`{from}` has {:#x} bytes only", donor.size);
            return Err(cannot(
                &why,
                "take a smaller size, or take from another partition",
            ));
        };
        let used = self.content(&donor).iter().rposition(|byte| *byte != 0xff);
        let kept = start - donor.offset;
        if used.is_some_and(|last| last >= kept as usize) {
            let why = format!("`{from}` has content where it would lie");
            return Err(cannot(
                &why,
                "take a smaller size, or take from another partition",
            ));
        }
        for partition in &mut self.table.partitions {
            if partition.label == from {
                partition.size = kept;
            }
        }
        Ok(start)
    }
}

pub(super) fn inject(
    firmware: &[u8],
    image: &[u8],
    placement: &Placement,
) -> Result<Injected, FirmwareError> {
    for (option, given) in [
        ("--address", placement.address.is_some()),
        ("--room", placement.room.is_some()),
        ("--family", placement.family.is_some()),
    ] {
        if given {
            return Err(FirmwareError::Option {
                option,
                format: "ESP32 flash content",
            });
        }
    }
    let mut flash = Flash::parse(firmware)?;
    let name = placement.partition.as_deref().unwrap_or(ROMFS_PARTITION);
    let there = flash
        .table
        .find(name)
        .filter(|partition| partition.kind == TYPE_DATA)
        .cloned();
    let added = there.is_none();
    let partition = match (there, placement.add) {
        (Some(partition), _) => partition,
        (None, Some(size)) if flash.table.find(name).is_none() => {
            flash.add(name, size, placement.take_from.as_deref())?
        }
        _ => {
            return Err(FirmwareError::NoPartition {
                name: name.to_owned(),
                there: flash.names(),
            });
        }
    };
    let (size, room) = (image.len() as u64, u64::from(partition.size));
    if size > room {
        let what = format!("the partition `{name}`");
        return Err(FirmwareError::TooLarge { size, room, what });
    }
    let at = (flash.table_at - flash.base) as usize;
    // What the file holds in front of its own partitions is boot loader and table.
    let first_free = u64::from(flash.table_at) + TABLE_SIZE as u64;
    let place = u64::from(partition.offset)..partition.end();
    if place.end > u64::from(FLASH_MAX) {
        let why = format!("the partition `{name}` lies beyond any flash");
        return Err(FirmwareError::Damaged { why, at });
    }
    if place.start < first_free {
        let there = u64::from(flash.base)..first_free;
        let what = "the boot loader with the partition table".to_owned();
        return Err(FirmwareError::Overlap {
            image: place,
            there,
            what,
        });
    }
    for other in flash
        .table
        .partitions
        .iter()
        .filter(|other| **other != partition)
    {
        let there = u64::from(other.offset)..other.end();
        if super::overlap(&place, &there) {
            let what = format!("the partition `{}`", other.label);
            return Err(FirmwareError::Overlap {
                image: place,
                there,
                what,
            });
        }
    }
    let before = flash.content(&partition);
    let replaced = before.starts_with(&pytheas_release::board::MAGIC);
    if !replaced && before.iter().any(|byte| *byte != 0xff) {
        let what = format!("other content of the partition `{name}`");
        let (image, there) = (place.start..place.start + size, place);
        return Err(FirmwareError::Overlap { image, there, what });
    }
    let mut bytes = firmware.to_vec();
    if added && let Some(table) = flash.table.encode() {
        bytes[at..at + TABLE_SIZE].copy_from_slice(&table);
    }
    let from = (partition.offset - flash.base) as usize;
    let to = from + image.len();
    if bytes.len() < to {
        bytes.resize(to, 0xff);
    }
    // Nothing of an earlier image stays behind this one.
    let end = (from + partition.size as usize).min(bytes.len());
    bytes[from..end].fill(0xff);
    bytes[from..to].copy_from_slice(image);
    Ok(Injected {
        bytes,
        format: Format::Esp32,
        address: partition.offset,
        image_size: u32::try_from(image.len()).unwrap_or(u32::MAX),
        room: Some(partition.size),
        partition: Some(partition.label),
        family: None,
        replaced,
    })
}
