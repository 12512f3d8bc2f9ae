//! Release documents and build records: no bytes make the parsers panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_release::{BuildRecord, Release};

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    let _refused_or_not = Release::parse("a/1/linux-x86_64/release.json", bytes);
    if let Ok(record) = BuildRecord::parse(bytes) {
        assert_eq!(BuildRecord::parse(&record.encode()).unwrap(), record);
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let blob = format!(r#"{{"sha256": "{hash}", "size_bytes": 91022}}"#);
    let common = r#""format": 1, "name": "a", "version": "1", "platform": "linux-x86_64", "entry": "bin/a""#;
    let health = r#"{"ready": {"kind": "notify"}, "deadline_ms": 30000, "stay_up_ms": 10000}"#;
    let release = format!(
        r#"{{{common}, "form": "bundle",
  "tree": {{"id": "{hash}", "size_bytes": 60311422, "files": 2301, "document": {blob}}},
  "index": {blob}, "deltas": {{"{hash}": {blob}}}, "requires": {{}}, "health": {health}}}"#
    );
    let record = format!(
        r#"{{{common}, "form": "bundle", "health": {health},
  "interpreter": {{"provider": "host", "implementation": "cpython", "version": "3.11.7", "sha256": "{hash}"}}}}"#
    );
    assert!(Release::parse("a/1/linux-x86_64/release.json", release.as_bytes()).is_ok(), "a seed");
    assert!(BuildRecord::parse(record.as_bytes()).is_ok(), "a seed");
    vec![release.into_bytes(), record.into_bytes()]
}
