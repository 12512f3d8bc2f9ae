//! Offline files: whatever opens has its files inside itself, is read without a panic, and memory
//! stays bounded.
#![no_main]

use std::io::{Read as _, Write as _};

use libfuzzer_sys::fuzz_target;
use pytheas_release::Sha256;
use pytheas_repo::{
    fetch::{Fetch as _, Request},
    offline::{OfflineFile, header, scan},
};

/// Both a whole archive as it comes, and one whose headers' check sums were made right.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in (0..out.len().saturating_sub(511)).step_by(512) {
        let block = &out[at..at + 512];
        let text = |from: usize, to: usize| {
            let field = block[from..to].split(|b| *b == 0).next().unwrap_or_default();
            String::from_utf8(field.to_vec()).ok()
        };
        if let (true, Some(name), Some(size)) = (block[257..].starts_with(b"ustar"), text(0, 100), text(124, 135))
            && let Ok(size) = u64::from_str_radix(&size, 8)
            && let Ok(right) = header(&name, size)
        {
            out[at..at + 512].copy_from_slice(&right);
        }
    }
    out
}

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    for bytes in [bytes.to_vec(), mended(bytes)] {
        let len = bytes.len() as u64;
        let read = |at: u64, block: &mut [u8]| {
            let at = usize::try_from(at).expect("it lies inside");
            block.copy_from_slice(&bytes[at..at + block.len()]);
            Ok(())
        };
        let mut read = read;
        if let Ok(members) = scan(len, &mut read) {
            for member in members {
                assert!(member.offset + member.size_bytes <= len);
            }
            let mut file = tempfile();
            file.1.write_all(&bytes).expect("there is room");
            if let Ok(mut opened) = OfflineFile::of(file.0.as_ref(), file.1) {
                let _whole_or_not = opened.check(&mut |_| {});
                let _metadata_or_not = opened.expiries();
                for member in opened.members().to_vec() {
                    let request = Request { path: &member.path, range: Some(1..u64::MAX), max_bytes: 1 << 20 };
                    if let Ok(Some(mut body)) = opened.fetch(&request) {
                        let mut all = Vec::new();
                        let _read = body.reader.read_to_end(&mut all);
                        assert!(all.len() as u64 <= member.size_bytes);
                    }
                }
            }
        }
    }
});

/// A file that is gone when it is closed.
fn tempfile() -> (String, std::fs::File) {
    let path = std::env::temp_dir().join(format!("fuzz-offline-{}", std::process::id()));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a temporary file");
    std::fs::remove_file(&path).expect("it is ours");
    ("offline".into(), file)
}

fn seeds() -> Vec<Vec<u8>> {
    let export = br#"{"format": 1, "releases": ["a/1/linux-x86_64/release.json"]}"#.to_vec();
    let metadata = |kind: &str| {
        format!(r#"{{"signatures": [], "signed": {{"_type": "{kind}", "expires": "2030-01-01T00:00:00Z", "version": 1}}}}"#)
            .into_bytes()
    };
    let blob = b"print('one')\n".repeat(60);
    let sha256 = Sha256::of(&blob).to_string();
    let files = [
        ("export.json".to_owned(), export),
        (format!("blobs/{}/{sha256}", &sha256[..2]), blob),
        ("metadata/1.root.json".to_owned(), metadata("root")),
        ("metadata/1.snapshot.json".to_owned(), metadata("snapshot")),
        ("metadata/1.targets.json".to_owned(), metadata("targets")),
        ("metadata/timestamp.json".to_owned(), metadata("timestamp")),
        ("targets/a/1/linux-x86_64/release.json".to_owned(), b"{}".to_vec()),
    ];
    let archive = |files: &[(String, Vec<u8>)]| {
        let sums: String =
            files.iter().map(|(path, bytes)| format!("{}  {path}\n", Sha256::of(bytes))).collect();
        let sums = ("SHA256SUMS".to_owned(), sums.into_bytes());
        let mut out = Vec::new();
        for (path, bytes) in files.iter().chain([&sums]) {
            out.extend_from_slice(&header(path, bytes.len() as u64).expect("it fits"));
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        let mut read = |at: u64, block: &mut [u8]| {
            let at = usize::try_from(at).expect("it lies inside");
            block.copy_from_slice(&out[at..at + block.len()]);
            Ok(())
        };
        scan(out.len() as u64, &mut read).expect("a seed");
        out
    };
    vec![archive(&files), archive(&files[..1])]
}
