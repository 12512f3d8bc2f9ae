//! Tree documents: whatever parses is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_release::{Entry, Sha256, Tree};

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    if let Ok(tree) = Tree::parse(bytes) {
        assert_eq!(tree.encode(), bytes);
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let mut tree = Tree::default();
    for (number, (path, bytes)) in seeds::files("examples", ".py").iter().enumerate() {
        let entry = Entry::File {
            size_bytes: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            executable: number % 2 == 0,
        };
        tree.insert(path.parse().unwrap(), entry).unwrap();
    }
    let mut small = Tree::default();
    let odd = [
        ("bin/app", Entry::Symlink { target: "../lib/a b.py".into() }),
        ("cache", Entry::Directory),
        ("lib/a b.py", Entry::File { size_bytes: 0, sha256: Sha256::of(b""), executable: false }),
        ("lib/\u{e9}.py", Entry::File { size_bytes: u64::MAX, sha256: Sha256::of(b"x"), executable: true }),
    ];
    for (path, entry) in odd {
        small.insert(path.parse().unwrap(), entry).unwrap();
    }
    [Tree::default(), small, tree].iter().map(Tree::encode).collect()
}
