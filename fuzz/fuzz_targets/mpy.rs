//! `.mpy` files: whatever parses can be asked everything, and its imports and lines are found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::mpy::{LineMap, Mpy};

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    if let Ok(mpy) = Mpy::parse(bytes) {
        let imports = mpy.imports();
        assert!(imports.found.len() <= bytes.len());
        let _lines_or_none = LineMap::of(&mpy);
        assert!(LineMap::for_stripped(&mpy, &mpy).is_ok() || LineMap::of(&mpy).is_err());
    }
});

/// Those of the tests, and what the MicroPython of `cargo xtask micropython` compiled, if it is there.
fn seeds() -> Vec<Vec<u8>> {
    let mut found = seeds::files("crates/pytheas-board/src/mpy", ".mpy");
    found.extend(seeds::files("target/tools/micropython", ".mpy").into_iter().take(200));
    found.into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 20_000).collect()
}
