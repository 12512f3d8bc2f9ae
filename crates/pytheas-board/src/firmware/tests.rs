//! Made-up firmware of each kind, whole and damaged.

use proptest::prelude::*;

use super::*;

/// A UF2 file of one family with this content at the start of an RP2's flash.
fn uf2(content: &[u8]) -> Vec<u8> {
    let blocks: Vec<_> = content.chunks(256).collect();
    let mut file = Vec::new();
    for (number, chunk) in (0_u32..).zip(&blocks) {
        let count = u32::try_from(blocks.len()).unwrap();
        let address = 0x1000_0000 + number * 256;
        for word in [
            0x0a32_4655,
            0x9e5d_5157,
            0x2000,
            address,
            256,
            number,
            count,
            0xe48b_ff56,
        ] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend_from_slice(chunk);
        file.resize(file.len().next_multiple_of(512) - 4, 0);
        file.extend(0x0ab1_6f30_u32.to_le_bytes());
    }
    file
}

/// Flash content of an ESP32-C3 with a ROMFS partition of 64 KiB.
fn esp32() -> Vec<u8> {
    let mut file = vec![0xff; 0x1_0100];
    file[0] = 0xe9;
    file[12] = 5;
    let partition = |label: &str, kind, offset| Partition {
        label: label.into(),
        kind,
        subtype: 0,
        offset,
        size: 0x1_0000,
        flags: 0,
    };
    let table = PartitionTable {
        partitions: vec![
            partition("factory", 0, 0x1_0000),
            partition("romfs", 1, 0x2_0000),
        ],
        checksum: true,
    };
    let table = table.encode().unwrap();
    file[0x8000..0x8000 + table.len()].copy_from_slice(&table);
    file
}

const HEX: &[u8] =
    b":020000041000EA\r\n:0400000001020304F2\r\n:04000005100000FFE8\r\n:00000001FF\r\n";

fn at(address: u32) -> Placement {
    Placement {
        address: Some(address),
        ..Placement::default()
    }
}

/// What MicroPython for RP2 says of its file system (`bi_block_device`), 1 MiB into the flash.
#[test]
fn the_file_system_of_an_rp2_board_is_not_overwritten() {
    let mut content = vec![0; 1024];
    let words: [(usize, u32); 9] = [
        (0x100, 0x7188_ebf2),
        (0x104, 0x1000_0200),
        (0x108, 0x1000_0204),
        (0x110, 0xe71a_a390),
        (0x200, 0x1000_0300),
        (0x300, 0x504d_0007),
        (0x304, 0),
        (0x308, 0x1010_0000),
        (0x30c, 0x10_0000),
    ];
    for (at, word) in words {
        content[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let image = crate::romfs::plain(&[("a".parse().unwrap(), vec![1; 5000])].into()).unwrap();
    assert!(inject(&uf2(&content), &image, &at(0x100f_e000)).is_ok());
    insta::assert_snapshot!(
        inject(&uf2(&content), &image, &at(0x100f_f000)).unwrap_err(),
        @"the image would lie at 0x100ff000 to 0x10100396, where the board's file system lies (0x10100000 to 0x10200000)"
    );
}

#[test]
fn a_partition_with_other_content_and_a_label_that_is_no_text_are_refused() {
    let image = crate::romfs::plain(&[("a".parse().unwrap(), vec![1; 600])].into()).unwrap();
    let mut file = esp32();
    file.resize(0x2_0100, 0xff);
    assert!(inject(&file, &image, &Placement::default()).is_ok());
    file[0x2_0000..0x2_0003].copy_from_slice(b"x\xcd\x31");
    insta::assert_snapshot!(
        inject(&file, &image, &Placement::default()).unwrap_err(),
        @"the image would lie at 0x20000 to 0x20266, where other content of the partition `romfs` lies (0x20000 to 0x30000)"
    );
    file[0x2_0000] = 0xd2;
    assert!(
        inject(&file, &image, &Placement::default())
            .unwrap()
            .replaced
    );
    let mut file = esp32();
    file[0x800c] = 0xff;
    // As if it had been written so.
    let sum: [u8; 16] = <md5::Md5 as md5::Digest>::digest(&file[0x8000..0x8040]).into();
    file[0x8050..0x8060].copy_from_slice(&sum);
    insta::assert_snapshot!(
        inject(&file, &image, &Placement::default()).unwrap_err(),
        @"damaged firmware: a label of the partition table is not UTF-8, at byte 0x8000"
    );
}

/// `(flags, address, blocks in all, family)` of one UF2 block each, numbered by their place.
fn blocks(words: &[(u32, u32, u32, u32)]) -> Vec<u8> {
    let mut file = uf2(&vec![7; words.len() * 256]);
    for (block, (flags, address, all, family)) in file.chunks_mut(512).zip(words) {
        for (at, word) in [(8, flags), (12, address), (24, all), (28, family)] {
            block[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
    file
}

#[test]
fn blocks_counted_together_or_by_family_are_so_with_an_image_too() {
    let image = crate::romfs::plain(&[("a".parse().unwrap(), vec![1; 600])].into()).unwrap();
    let of = |all: [u32; 4]| {
        let mut file = blocks(&[
            (0x2000, 0x1000_0000, all[0], 0xe48b_ff56),
            (0x2000, 0x1000_0100, all[1], 0xe48b_ff56),
            (1, 0x2000_0000, all[2], 0),
            (0x2000, 0x10ff_ff00, all[3], 0xe48b_ff57),
        ]);
        file[2 * 512 + 20] = u8::from(all[2] > 2) * 2;
        file
    };
    // Of each block: the start of its address, its number, and how many it says there are.
    let counts = |all| {
        let new = inject(&of(all), &image, &at(0x1010_0000)).unwrap();
        let again = inject(&new.bytes, &image, &at(0x1010_0000)).unwrap();
        assert!(again.replaced && again.bytes == new.bytes);
        let count = |block: &[u8]| (block[15], block[20], block[24]);
        new.bytes.chunks(512).map(count).collect::<Vec<_>>()
    };
    let flash = |all| (0..5).map(move |number| (0x10, number, all));
    // RP2350's block for an erratum may have its own count: the others tell.
    for all in [[4; 4], [4, 4, 4, 2]] {
        assert!(
            counts(all)
                .into_iter()
                .eq(flash(7).chain([(0x20, 5, 7), (0x10, 6, 7)]))
        );
    }
    assert!(
        counts([2, 2, 1, 2])
            .into_iter()
            .eq(flash(5).chain([(0x20, 0, 1), (0x10, 3, 2)]))
    );
    insta::assert_snapshot!(
        inject(&of([2, 4, 4, 4]), &image, &at(0x1010_0000)).unwrap_err(),
        @"damaged firmware: block 1 of 4, and there are 2 of its family: blocks are missing, at byte 0x200"
    );
}

proptest! {
    #[test]
    fn damaged_firmware_is_an_error_or_takes_the_image(
        size in 1..3000_usize,
        at_byte: prop::sample::Index,
        to: u8,
        bytes: Vec<u8>,
    ) {
        let image = crate::romfs::plain(&[("a".parse().unwrap(), vec![1; size])].into()).unwrap();
        let _ = inject(&bytes, &image, &at(0x1010_0000));
        for (mut firmware, placement) in [
            (uf2(&[7; 1000]), at(0x1010_0000)),
            (esp32(), Placement::default()),
            (HEX.to_vec(), at(0x1010_0000)),
        ] {
            let whole = inject(&firmware, &image, &placement).unwrap();
            let again = inject(&whole.bytes, &image, &placement).unwrap();
            prop_assert!(again.replaced && again.bytes == whole.bytes);
            let at = at_byte.index(firmware.len());
            firmware[at] = to;
            if let Ok(new) = inject(&firmware, &image, &placement) {
                let again = inject(&new.bytes, &image, &placement).unwrap();
                prop_assert!(again.replaced && again.bytes == new.bytes);
            }
        }
    }
}
