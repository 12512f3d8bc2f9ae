//! `pytheas board inject`: text, JSON and errors. Whether the files are right is tested where the
//! formats are, by programs that are not ours.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_board::romfs::{self, Rom};

use crate::common::{json, pytheas, shown};

/// An Intel HEX file of four bytes at 0x10000000.
const HEX: &str = ":020000041000EA\n:0400000001020304F2\n:00000001FF\n";

fn image(dir: &Path) -> Vec<u8> {
    let files = BTreeMap::from([("main.py".parse().unwrap(), b"print('on board')\n".to_vec())]);
    let image = romfs::plain(&files).unwrap();
    fs::write(dir.join("app.romfs"), &image).unwrap();
    image
}

#[test]
fn an_image_goes_into_a_firmware_file_and_errors_say_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let image = image(dir);
    fs::write(dir.join("firmware.hex"), HEX).unwrap();
    let inject = |arguments: &[&str]| {
        let mut command = pytheas(dir);
        command
            .current_dir(dir)
            .args(["board", "inject", "app.romfs", "--into", "firmware.hex"]);
        command.args(["--out", "new.hex"]).args(arguments);
        command
    };
    insta::assert_snapshot!(shown(&inject(&["--address", "0x10100000", "--room", "4K"]).output().unwrap()), @r#"
exit 0
--- stdout
firmware      new.hex
format        Intel HEX
image         1 file, 34 B of 4.1 KB
address       0x10100000
--- stderr
"#);
    let new = fs::read_to_string(dir.join("new.hex")).unwrap();
    assert!(
        new.contains(":020000041010DA\n") && new.ends_with(":00000001FF\n"),
        "{new}"
    );

    fs::rename(dir.join("new.hex"), dir.join("firmware.hex")).unwrap();
    let again = json(&mut inject(&["--address", "0x10100000"]));
    assert_eq!(again["replaced"], true);
    assert_eq!(again["image_size"], image.len());
    assert_eq!(fs::read_to_string(dir.join("new.hex")).unwrap(), new);

    insta::assert_snapshot!(shown(&inject(&["--address", "0x10000000"]).output().unwrap()), @r#"
exit 1
--- stdout
--- stderr
error: cannot put the image into `firmware.hex`
  cause: the image would lie at 0x10000000 to 0x10000022, where the firmware itself lies (0x10000000 to 0x10000004)
  help: only an earlier image is replaced: check address or partition, or make the image smaller
"#);
    insta::assert_snapshot!(shown(&inject(&["--address", "0x10100000", "--room", "16"]).output().unwrap()), @r#"
exit 1
--- stdout
--- stderr
error: cannot put the image into `firmware.hex`
  cause: the image has 34 bytes, the partition at 0x10100000 has room for 16
  help: leave files out of the image, compile them (`.mpy` is about a fifth of `.py`), or use firmware with a larger partition
"#);
    insta::assert_snapshot!(shown(&inject(&[]).output().unwrap()), @r#"
exit 1
--- stdout
--- stderr
error: cannot put the image into `firmware.hex`
  cause: where the image goes is not known
  help: give `--address`: the start of the ROMFS partition the firmware was built with (`mpremote romfs query` shows whether a board has one); or `--board`, one of `ARDUINO_GIGA`, `ARDUINO_NICLA_VISION`, `ARDUINO_PORTENTA_H7`, `PYBD_SF2`, `PYBD_SF6`
"#);
    assert!(Rom::read(&image).is_ok());
}
