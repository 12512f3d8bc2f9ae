//! ROMFS images: what is read is written and read again as the same files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::romfs::{self, Rom};

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
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

fn seeds() -> Vec<Vec<u8>> {
    let files = seeds::files("micropython/pytheas", ".py");
    let image = |most: usize, short: usize| {
        let files = files.iter().take(most).map(|(path, bytes)| {
            let path = path.parse().expect("a path of ours");
            (path, bytes[..bytes.len().min(short)].to_vec())
        });
        romfs::plain(&files.collect()).expect("files of ours")
    };
    vec![image(0, 0), image(1, 20), image(4, 40), image(usize::MAX, 200), image(3, usize::MAX)]
}
