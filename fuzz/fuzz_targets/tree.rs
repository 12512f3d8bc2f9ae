//! Tree documents: whatever parses is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_release::Tree;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = Tree::parse(bytes) {
        assert_eq!(tree.encode(), bytes);
    }
});
