//! Firmware files made by, and read by, programs that are not ours.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pytheas_board::{
    firmware::{FirmwareError, Format, Injected, Placement, inject},
    romfs,
};
use pytheas_release::Sha256;

use crate::rig;

const CSV: &str = "\
nvs,      data, nvs,     0x9000,  0x6000,
phy_init, data, phy,     0xf000,  0x1000,
factory,  app,  factory, 0x10000, 0x1D0000,
romfs,    data, 0x8f,    0x1E0000, 0x20000,
vfs,      data, fat,     0x200000, 0x200000,
";
/// MicroPython's own table for 4 MiB, without a ROMFS partition.
const CSV_WITHOUT: &str = "\
nvs,      data, nvs,     0x9000,  0x6000,
phy_init, data, phy,     0xf000,  0x1000,
factory,  app,  factory, 0x10000, 0x1F0000,
vfs,      data, fat,     0x200000, 0x200000,
";

/// A folder, the tools and how to call them.
struct Bench {
    dir: tempfile::TempDir,
    python: PathBuf,
}

impl Bench {
    /// None, visibly, when the module is not installed.
    fn with(module: &str) -> Option<Self> {
        let python = rig::tools().join("bin/python");
        let there = Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output();
        if there.is_ok_and(|output| output.status.success()) {
            return Some(Self {
                dir: tempfile::tempdir().unwrap(),
                python,
            });
        }
        testkit::skip(&format!("Python module `{module}` is not in target/tools"));
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/firmware_tools.py");
        let mut command = Command::new(&self.python);
        rig::output(
            command
                .arg(script)
                .args(arguments)
                .current_dir(self.dir.path()),
        )
    }

    fn put(&self, name: &str, content: &[u8]) {
        rig::put(&self.path(name), content);
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

/// A ROMFS image of about this size.
fn image(size: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
    romfs::plain(&[("main.py".parse().unwrap(), content)].into()).unwrap()
}

fn part(name: &str, address: u32, content: &[u8]) -> String {
    format!(
        "{name} {address:#x} {} {}\n",
        content.len(),
        Sha256::of(content)
    )
}

fn at(address: u32) -> Placement {
    Placement {
        address: Some(address),
        ..Placement::default()
    }
}

fn named(partition: &str) -> Placement {
    Placement {
        partition: Some(partition.into()),
        ..Placement::default()
    }
}

#[test]
fn a_uf2_file_is_read_back_by_uf2utils() {
    let Some(bench) = Bench::with("uf2utils") else {
        return;
    };
    let program: Vec<u8> = (0..5000_usize).map(|at| (at % 253) as u8).collect();
    bench.put("program.bin", &program);
    let rp2040 = "0xe48bff56";
    bench.run(&[
        "make_uf2",
        "program.bin",
        "firmware.uf2",
        rp2040,
        "0x10000000",
    ]);
    let firmware = bench.get("firmware.uf2");
    let before = bench.run(&["read_uf2", "firmware.uf2"]);
    let (first, second) = (image(3000), image(1000));

    let new = inject(&firmware, &first, &at(0x1010_0000)).unwrap();
    assert_eq!(
        (new.format, new.family, new.replaced),
        (Format::Uf2, Some(0xe48b_ff56), false)
    );
    bench.put("new.uf2", &new.bytes);
    let padded = |image: &[u8]| {
        let mut bytes = image.to_vec();
        bytes.resize(bytes.len().next_multiple_of(256), 0xff);
        bytes
    };
    let after = bench.run(&["read_uf2", "new.uf2"]);
    assert_eq!(
        after,
        before.clone() + &part(rp2040, 0x1010_0000, &padded(&first))
    );

    // Again, with a smaller image: nothing of the first one is left, and the order does not matter.
    let again = inject(&new.bytes, &second, &at(0x1010_0000)).unwrap();
    assert!(again.replaced);
    assert_eq!(
        again.bytes,
        inject(&firmware, &second, &at(0x1010_0000)).unwrap().bytes
    );

    let error = |placement: &Placement| {
        inject(&firmware, &first, placement)
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(error(&at(0x1000_1000)), @"the image would lie at 0x10001000 to 0x10001bcc, where the firmware itself lies (0x10000000 to 0x10001388)");
    insta::assert_snapshot!(error(&at(0x1010_0100)), @"the address 0x10100100 is not a multiple of 0x1000");
    insta::assert_snapshot!(error(&Placement::default()), @"where the image goes is not known");
    insta::assert_snapshot!(error(&Placement { room: Some(1024), ..at(0x1010_0000) }), @"the image has 3020 bytes, the partition at 0x10100000 has room for 1024");
    insta::assert_snapshot!(error(&Placement { family: Some(1), ..at(0x1010_0000) }), @"the UF2 file has no blocks for family 0x00000001");
    insta::assert_snapshot!(inject(&firmware[512..], &first, &at(0x1010_0000)).unwrap_err(), @"damaged firmware: block 1 of 20, and there are 19: blocks are missing, at byte 0x0");
}

#[test]
fn a_uf2_file_for_two_families_keeps_the_other_ones_blocks() {
    let Some(bench) = Bench::with("uf2utils") else {
        return;
    };
    bench.put("a.bin", &[1; 700]);
    bench.put("b.bin", &[2; 900]);
    bench.run(&["make_uf2", "a.bin", "a.uf2", "0xe48bff56", "0x10000000"]);
    bench.run(&["make_uf2", "b.bin", "b.uf2", "0xe48bff59", "0x10000000"]);
    let both = [bench.get("a.uf2"), bench.get("b.uf2")].concat();
    let image = image(600);
    let error = inject(&both, &image, &at(0x1010_0000)).unwrap_err();
    insta::assert_snapshot!(error, @"the UF2 file is for several families: 0xe48bff56, 0xe48bff59");
    let family = Some(0xe48b_ff56);
    let new = inject(
        &both,
        &image,
        &Placement {
            family,
            ..at(0x1010_0000)
        },
    )
    .unwrap();
    bench.put("new.uf2", &new.bytes);
    let text = bench.run(&["read_uf2", "new.uf2"]);
    assert!(
        text.contains("0xe48bff56 counted\n") && text.contains("0xe48bff59 counted\n"),
        "{text}"
    );
    assert!(text.contains(&bench.run(&["read_uf2", "b.uf2"])), "{text}");
}

#[test]
fn an_intel_hex_file_of_objcopy_is_read_back_by_intelhex() {
    let Some(bench) = Bench::with("intelhex") else {
        return;
    };
    let Some(elf) = rig::program("qemu/firmware.elf") else {
        return;
    };
    let made = Command::new("arm-none-eabi-objcopy")
        .args(["-O", "ihex"])
        .arg(elf)
        .arg(bench.path("f.hex"))
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        testkit::skip("arm-none-eabi-objcopy is not installed");
        return;
    }
    let firmware = bench.get("f.hex");
    let before = bench.run(&["read_hex", "f.hex"]);
    let (parts, start) = before.split_once("start").unwrap();
    // Across two borders of 64 KiB.
    let image = image(150_000);
    let address = 0x2100_8000;
    let new = inject(&firmware, &image, &at(address)).unwrap();
    assert_eq!((new.format, new.replaced), (Format::IntelHex, false));
    bench.put("new.hex", &new.bytes);
    let after = bench.run(&["read_hex", "new.hex"]);
    assert_eq!(
        after,
        format!("{parts}{}start{start}", part("hex", address, &image))
    );
    assert_eq!(new.bytes.contains(&b'\r'), firmware.contains(&b'\r'));

    let again = inject(&new.bytes, &image[..], &at(address)).unwrap();
    assert!(again.replaced);
    assert_eq!(again.bytes, new.bytes);

    let error = |bytes: &[u8], address| inject(bytes, &image, &at(address)).unwrap_err();
    assert!(matches!(
        error(&firmware, 0x100),
        FirmwareError::Overlap { .. }
    ));
    let mut changed = firmware.clone();
    changed[12] ^= 1;
    insta::assert_snapshot!(error(&changed, address), @"damaged firmware: the checksum of a line is wrong, at byte 0x0");
    let cut = &firmware[..firmware.len() - 20];
    assert!(matches!(error(cut, address), FirmwareError::Damaged { .. }));
}

#[test]
fn an_esp32_file_keeps_its_hashes_and_its_table() {
    let Some(bench) = Bench::with("esptool, esp_idf_defs") else {
        return;
    };
    bench.put("table.csv", CSV.as_bytes());
    let image = image(20_000);
    for (chip, base) in [("esp32", "0x1000"), ("esp32c3", "0")] {
        bench.run(&["make_esp", chip, "f.bin", "table.csv", "base"]);
        let firmware = bench.get("f.bin");
        let before = bench.run(&["read_esp", chip, "f.bin", base]);
        let new = inject(&firmware, &image, &Placement::default()).unwrap();
        let Injected {
            address,
            room,
            format,
            replaced,
            ..
        } = new;
        assert_eq!(
            (address, room, format, replaced),
            (0x1e_0000, Some(0x2_0000), Format::Esp32, false)
        );
        bench.put("new.bin", &new.bytes);
        assert_eq!(bench.run(&["read_esp", chip, "new.bin", base]), before);
        let offset = 0x1e_0000 - usize::from_str_radix(base.trim_start_matches("0x"), 16).unwrap();
        assert_eq!(new.bytes[offset..], image);
        assert_eq!(new.bytes[..firmware.len()], firmware);

        let smaller = self::image(100);
        let again = inject(&new.bytes, &smaller, &named("romfs")).unwrap();
        assert!(again.replaced);
        assert_eq!(again.bytes[offset..offset + smaller.len()], smaller);
        assert!(
            again.bytes[offset + smaller.len()..]
                .iter()
                .all(|byte| *byte == 0xff)
        );
    }
    let firmware = bench.get("f.bin");
    let error = |image: &[u8], placement| {
        inject(&firmware, image, &placement)
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(error(&image, named("factory")), @"the firmware's partition table has no data partition `factory`");
    insta::assert_snapshot!(error(&self::image(0x2_0000), Placement::default()), @"the image has 131094 bytes, the partition `romfs` has room for 131072");
    insta::assert_snapshot!(error(&image, at(0x1e_0000)), @"`--address` means nothing for ESP32 flash content");
    let mut changed = firmware.clone();
    changed[0x8010] ^= 1;
    insta::assert_snapshot!(inject(&changed, &image, &Placement::default()).unwrap_err(), @"damaged firmware: the checksum of the partition table is wrong, at byte 0x8000");
    let app = bench.get("f.bin.app");
    insta::assert_snapshot!(inject(&app, &image, &Placement::default()).unwrap_err(), @"the firmware is the app of an ESP32 alone, without boot loader and partition table");
}

#[test]
fn a_partition_is_added_to_an_esp32_file_when_asked() {
    let Some(bench) = Bench::with("esptool, esp_idf_defs") else {
        return;
    };
    bench.put("table.csv", CSV_WITHOUT.as_bytes());
    bench.run(&["make_esp", "esp32s3", "f.bin", "table.csv", "zero"]);
    let firmware = bench.get("f.bin");
    let image = image(20_000);
    let add = |take_from: Option<&str>, size| Placement {
        add: Some(size),
        take_from: take_from.map(str::to_owned),
        ..Placement::default()
    };
    let error = |placement| {
        let error: FirmwareError = inject(&firmware, &image, &placement).unwrap_err();
        format!("{error}: {}", miette::Diagnostic::help(&error).unwrap())
    };
    insta::assert_snapshot!(error(Placement::default()), @"the firmware's partition table has no data partition `romfs`: it has `nvs`, `phy_init`, `factory`, `vfs`; name one with `--partition`, or add one with `--add-partition SIZE`");
    insta::assert_snapshot!(error(add(None, 0x2_0000)), @"no partition `romfs` of 0x20000 bytes can be added: there is no free space between the partitions: cut it off another one: `--take-from factory` where the program leaves room, else `--take-from vfs`");
    insta::assert_snapshot!(error(add(Some("nvs"), 0x2_0000)), @"no partition `romfs` of 0x20000 bytes can be added: `nvs` has 0x6000 bytes only: take a smaller size, or take from another partition");
    insta::assert_snapshot!(error(add(Some("factory"), 0x1e_0000)), @"no partition `romfs` of 0x1e0000 bytes can be added: `factory` has content where it would lie: take a smaller size, or take from another partition");

    let new = inject(&firmware, &image, &add(Some("vfs"), 0x2_0000)).unwrap();
    bench.put("new.bin", &new.bytes);
    insta::assert_snapshot!(bench.run(&["read_esp", "esp32s3", "new.bin", "0"]), @r#"
nvs 1 2 0x9000 0x6000
phy_init 1 1 0xf000 0x1000
factory 0 0 0x10000 0x1f0000
vfs 1 129 0x200000 0x1e0000
romfs 1 143 0x3e0000 0x20000
boot loader valid
program valid
"#);
    assert_eq!(new.bytes[0x3e_0000..], image);
    // From now on it is there.
    let again = inject(&new.bytes, &image, &Placement::default()).unwrap();
    assert_eq!((again.bytes == new.bytes, again.replaced), (true, true));
}
