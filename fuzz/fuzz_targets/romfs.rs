//! ROMFS images: what is read is written and read again as the same files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::romfs::{self, Rom};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rom) = Rom::read(bytes) {
        // Pointers let a small image name the same bytes many times: only what stays small is written.
        let total: usize = rom.files.values().map(|data| data.len()).sum();
        if total > 1 << 20 {
            return;
        }
        let files = rom.files.iter().map(|(path, data)| (path.clone(), data.to_vec())).collect();
        let again = romfs::plain(&files).expect("what was read can be written");
        assert_eq!(Rom::read(&again).expect("what was written can be read").files, rom.files);
    }
});
