//! `.mpy` files: whatever parses can be asked everything, and its imports and lines are found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::mpy::{LineMap, Mpy};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mpy) = Mpy::parse(bytes) {
        let imports = mpy.imports();
        assert!(imports.found.len() <= bytes.len());
        let _lines_or_none = LineMap::of(&mpy);
        assert!(LineMap::for_stripped(&mpy, &mpy).is_ok() || LineMap::of(&mpy).is_err());
    }
});
