//! Firmware files: whatever takes an image has it where it says, and takes it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::firmware::{Partition, PartitionTable, Placement, format, inject};

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    let image = b"\xd2\xcd\x31\x06\x05\x04\x01a\x02\x00";
    for placement in [
        Placement { address: Some(0x1010_0000), ..Placement::default() },
        Placement::default(),
        Placement { add: Some(0x1_0000), take_from: Some("vfs".into()), ..Placement::default() },
    ] {
        if let Ok(injected) = inject(bytes, image, &placement) {
            assert!(injected.bytes.windows(4).count() > 0);
            let again = inject(&injected.bytes, image, &placement);
            assert!(again.is_ok_and(|again| again.bytes == injected.bytes && again.replaced));
        }
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let seeds = vec![uf2(), ihex(), esp32(true), esp32(false)];
    for seed in &seeds {
        assert!(format(seed).is_ok(), "a seed");
    }
    seeds
}

/// Six blocks for an RP2040.
fn uf2() -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..6_u32 {
        let mut block = vec![0; 512];
        let words = [
            0x0a32_4655, 0x9e5d_5157, 0x2000, 0x1000_0000 + number * 256, 256, number, 6, 0xe48b_ff56,
        ];
        for (at, word) in words.iter().enumerate() {
            block[at * 4..at * 4 + 4].copy_from_slice(&u32::to_le_bytes(*word));
        }
        block[32..288].fill(number as u8);
        block[508..].copy_from_slice(&0x0ab1_6f30_u32.to_le_bytes());
        out.extend(block);
    }
    out
}

/// A few records, as linkers write them.
fn ihex() -> Vec<u8> {
    let mut out = String::new();
    let mut record = |kind: u8, address: u16, data: &[u8]| {
        let mut bytes = vec![data.len() as u8, (address >> 8) as u8, address as u8, kind];
        bytes.extend_from_slice(data);
        bytes.push(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte)));
        out.push(':');
        bytes.iter().for_each(|byte| out.push_str(&format!("{byte:02X}")));
        out.push_str("\r\n");
    };
    record(4, 0, &[0x10, 0]);
    for line in 0..8_u16 {
        record(0, line * 16, &[line as u8; 16]);
    }
    record(5, 0, &[0x10, 0, 0, 1]);
    record(1, 0, &[]);
    out.into_bytes()
}

/// Boot loader, partition table, the first bytes of the program.
fn esp32(with_romfs: bool) -> Vec<u8> {
    let part = |label: &str, kind, subtype, offset, size| Partition {
        label: label.into(),
        kind,
        subtype,
        offset,
        size,
        flags: 0,
    };
    let mut partitions = vec![
        part("nvs", 1, 2, 0x9000, 0x6000),
        part("factory", 0, 0, 0x1_0000, 0x1000),
        part("vfs", 1, 0x81, 0x2_0000, 0x2_0000),
    ];
    if with_romfs {
        partitions.push(part("romfs", 1, 0x8f, 0x4_0000, 0x1_0000));
    }
    let table = PartitionTable { partitions, checksum: true };
    let mut out = vec![0xff; 0x8000];
    out[..4].copy_from_slice(&[0xe9, 1, 2, 0x20]);
    out.extend(table.encode().expect("four entries fit"));
    out.resize(0x1_0000, 0xff);
    out.extend([0xe9, 1, 2, 0x20]);
    out
}
