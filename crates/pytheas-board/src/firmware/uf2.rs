//! UF2 (Microsoft's format of 2016): blocks of 512 bytes, each with its own address.
//!
//! ```text
//! 0 magic 0x0a324655   4 magic 0x9e5d5157   8 flags    12 address   16 payload size   20 block number
//! 24 blocks in all     28 family, or file size          32 payload, up to 476 bytes   508 magic 0x0ab16f30
//! ```
//! A boot loader takes the blocks of its own family and counts those, so only that family's blocks are
//! numbered anew; blocks of others (RP2350 files begin with one for an erratum) stay as they are. In a
//! file whose blocks are counted together, whatever their family, all are.

use std::{collections::BTreeMap, ops::Range};

use super::{FirmwareError, Format, Injected, Placement, overlap, pico};

const BLOCK: usize = 512;
const MAGICS: [(usize, u32); 3] = [(0, 0x0a32_4655), (4, 0x9e5d_5157), (508, 0x0ab1_6f30)];
const FLAG_NOT_MAIN_FLASH: u32 = 1;
const FLAG_FILE_CONTAINER: u32 = 0x1000;
const FLAG_FAMILY: u32 = 0x2000;
/// RP2350's family for blocks at any address: never the program itself.
const FAMILY_ABSOLUTE: u32 = 0xe48b_ff57;
/// The families of RP2040 and RP2350, whose flash is erased in sectors of 4 KiB.
const FAMILIES_RP2: [u32; 4] = [0xe48b_ff56, 0xe48b_ff59, 0xe48b_ff5a, 0xe48b_ff5b];

pub(super) fn is(firmware: &[u8]) -> bool {
    MAGICS[..2].iter().all(|(at, magic)| {
        firmware
            .get(*at..at + 4)
            .is_some_and(|bytes| bytes == magic.to_le_bytes())
    })
}

/// One block as it stands in the file.
#[derive(Clone)]
struct Block([u8; BLOCK]);

impl Block {
    fn word(&self, at: usize) -> u32 {
        self.0
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(word) = self.0.get_mut(at..at + 4) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The family; none for a block without, which is for every boot loader.
    fn family(&self) -> Option<u32> {
        (self.word(8) & FLAG_FAMILY != 0).then(|| self.word(28))
    }

    fn is_flash(&self) -> bool {
        self.word(8) & FLAG_NOT_MAIN_FLASH == 0
    }

    fn payload(&self) -> &[u8] {
        self.0
            .get(32..32 + self.word(16) as usize)
            .unwrap_or_default()
    }

    fn range(&self) -> Range<u64> {
        let start = u64::from(self.word(12));
        start..start + u64::from(self.word(16))
    }
}

pub(super) fn inject(
    firmware: &[u8],
    image: &[u8],
    placement: &Placement,
) -> Result<Injected, FirmwareError> {
    let (mut blocks, together) = parse(firmware)?;
    let family = family(&blocks, placement.family)?;
    let address = super::address(placement, "a UF2 file")?;
    let ours = |block: &Block| block.is_flash() && block.family() == family;
    let Some(first) = blocks.iter().find(|block| ours(block)) else {
        return Err(FirmwareError::Damaged {
            why: "no block goes to the flash".into(),
            at: 0,
        });
    };
    let payload = first.word(16);
    let rp2 = family.is_some_and(|family| FAMILIES_RP2.contains(&family));
    let step = if rp2 { 4096 } else { payload };
    if address % step != 0 {
        return Err(FirmwareError::Misaligned { address, step });
    }
    let place = super::place(image, address, placement.room)?;
    let replaced = remove_old(&mut blocks, &ours, address);
    let sorted = blocks
        .iter()
        .filter(|block| ours(block))
        .is_sorted_by_key(|block| block.word(12));
    // A boot loader writes whole blocks, and RP2's erases whole sectors.
    let taken = place.start..place.end.next_multiple_of(u64::from(step));
    for block in blocks.iter().filter(|block| ours(block)) {
        if overlap(&taken, &block.range()) {
            let what = "the firmware itself".to_owned();
            return Err(FirmwareError::Overlap {
                image: place,
                there: extent(&blocks, &ours),
                what,
            });
        }
    }
    if rp2
        && let Some(files) = pico::file_system(&segments(&blocks, &ours))
        && overlap(&taken, &files)
    {
        let what = "the board's file system".to_owned();
        return Err(FirmwareError::Overlap {
            image: place,
            there: files,
            what,
        });
    }
    let mut template = Block([0; BLOCK]);
    for (at, magic) in MAGICS {
        template.set(at, magic);
    }
    template.set(8, if family.is_some() { FLAG_FAMILY } else { 0 });
    template.set(16, payload);
    template.set(28, family.unwrap_or(0));
    let mut added = Vec::new();
    for (chunk, number) in image.chunks(payload as usize).zip(0_u64..) {
        // `place` has seen that the end is within 32 bits.
        let start = u64::from(address) + number * u64::from(payload);
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let mut block = template.clone();
        block.set(12, start);
        block.0[32..32 + payload as usize].fill(0xff);
        block.0[32..32 + chunk.len()].copy_from_slice(chunk);
        added.push(block);
    }
    // Behind the last block of the family, or where its address belongs: readers want them in order.
    let behind = |block: &Block| ours(block) && (!sorted || block.word(12) < address);
    let at = blocks.iter().rposition(behind).map_or_else(
        || blocks.iter().position(ours).unwrap_or(blocks.len()),
        |last| last + 1,
    );
    blocks.splice(at..at, added);
    renumber(&mut blocks, together, family);
    Ok(Injected {
        bytes: blocks.iter().flat_map(|block| block.0).collect(),
        format: Format::Uf2,
        address,
        image_size: u32::try_from(image.len()).unwrap_or(u32::MAX),
        room: placement.room,
        partition: None,
        family,
        replaced,
    })
}

/// The blocks, and whether they are counted together rather than each family's by themselves.
fn parse(firmware: &[u8]) -> Result<(Vec<Block>, bool), FirmwareError> {
    let damaged = |why: &str, at| FirmwareError::Damaged {
        why: why.to_owned(),
        at,
    };
    let mut blocks = Vec::with_capacity(firmware.len() / BLOCK);
    for (number, bytes) in firmware.chunks(BLOCK).enumerate() {
        let at = number * BLOCK;
        let bytes = bytes
            .try_into()
            .map_err(|_| damaged("a block is cut off", at))?;
        let block = Block(bytes);
        if MAGICS
            .iter()
            .any(|(offset, magic)| block.word(*offset) != *magic)
        {
            return Err(damaged("a block has not the magic numbers of UF2", at));
        }
        if block.word(8) & FLAG_FILE_CONTAINER != 0 {
            return Err(damaged("it holds files, not the content of a flash", at));
        }
        if block.word(16) > 476 || block.word(16) == 0 || block.range().end > 1 << 32 {
            return Err(damaged("a block has an impossible size or address", at));
        }
        blocks.push(block);
    }
    let total = blocks.len();
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for block in &blocks {
        *counts.entry(block.family()).or_default() += 1;
    }
    // RP2350's block for an erratum says what it likes.
    let counted = || {
        let blocks = blocks.iter().zip((0..).step_by(BLOCK));
        blocks.filter(|(block, _)| block.family() != Some(FAMILY_ABSOLUTE))
    };
    let together = counted().all(|(block, _)| block.word(24) as usize == total);
    for (block, at) in counted() {
        let (number, all) = (block.word(20), block.word(24));
        let own = counts.get(&block.family()).copied().unwrap_or(0);
        if number >= all || (!together && all as usize != own) {
            let there = match own {
                own if own == total => total.to_string(),
                own => format!("{own} of its family"),
            };
            let why = format!("block {number} of {all}, and there are {there}: blocks are missing");
            return Err(damaged(&why, at));
        }
    }
    Ok((blocks, together))
}

/// The family the image is for: the only one, or the one that was named.
fn family(blocks: &[Block], named: Option<u32>) -> Result<Option<u32>, FirmwareError> {
    let mut families: Vec<_> = blocks
        .iter()
        .filter(|block| block.is_flash())
        .map(Block::family)
        .collect();
    families.sort_unstable();
    families.dedup();
    families.retain(|family| *family != Some(FAMILY_ABSOLUTE));
    let names = families.iter().map(|family| match family {
        Some(family) => format!("{family:#010x}"),
        None => "none".to_owned(),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    if let Some(family) = named {
        return match families.contains(&named) {
            true => Ok(named),
            false => Err(FirmwareError::NoFamily {
                family,
                families: names,
            }),
        };
    }
    match families[..] {
        [family] => Ok(family),
        _ => Err(FirmwareError::Families { families: names }),
    }
}

/// Takes out the blocks of an image that was put in before, which must be whole.
fn remove_old(blocks: &mut Vec<Block>, ours: &impl Fn(&Block) -> bool, address: u32) -> bool {
    let mut there: Vec<_> = segments(blocks, ours);
    there.sort_by_key(|(start, _)| *start);
    let Some(length) = super::old_image(&there, address) else {
        return false;
    };
    let old = u64::from(address)..u64::from(address) + length as u64;
    blocks.retain(|block| !(ours(block) && old.contains(&block.range().start)));
    true
}

fn extent(blocks: &[Block], ours: &impl Fn(&Block) -> bool) -> Range<u64> {
    let ranges: Vec<_> = blocks
        .iter()
        .filter(|block| ours(block))
        .map(Block::range)
        .collect();
    let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
    start..ranges.iter().map(|range| range.end).max().unwrap_or(0)
}

fn segments(blocks: &[Block], ours: &impl Fn(&Block) -> bool) -> Vec<(u32, Vec<u8>)> {
    let blocks = blocks.iter().filter(|block| ours(block));
    blocks
        .map(|block| (block.word(12), block.payload().to_vec()))
        .collect()
}

/// Numbers the family's blocks anew, or all where all were counted together.
fn renumber(blocks: &mut [Block], together: bool, family: Option<u32>) {
    let counted = |block: &Block| together || block.family() == family;
    let count = blocks.iter().filter(|block| counted(block)).count();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let bytes: u32 = blocks
        .iter()
        .filter(|block| block.family() == family)
        .map(|block| block.word(16))
        .sum();
    for (number, block) in (0..).zip(blocks.iter_mut().filter(|block| counted(block))) {
        block.set(20, number);
        block.set(24, count);
        // Without a family, this word is the file's size where it is not 0.
        if block.family().is_none() && block.word(28) != 0 {
            block.set(28, bytes);
        }
    }
}
