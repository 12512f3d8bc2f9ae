//! Release documents and build records: no bytes make the parsers panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_release::{BuildRecord, Release};

fuzz_target!(|bytes: &[u8]| {
    let _refused_or_not = Release::parse("a/1/linux-x86_64/release.json", bytes);
    if let Ok(record) = BuildRecord::parse(bytes) {
        assert_eq!(BuildRecord::parse(&record.encode()).unwrap(), record);
    }
});
