//! Deltas against a fixed old tree, and the two codes by themselves: nothing wrong is ever handed on
//! as finished, and no more memory is taken than is allowed.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use pytheas_codec::{elf::Layout, patch, text::{self, Kind}};
use pytheas_release::{
    Entry, RelPath, Sha256, Tree,
    delta::{Delta, Files, MadeSink, as_fuzzed, for_fuzzing, make},
};

const OLD: &[u8] = b"print('one')\nprint('two')\n";

struct Old;

impl Files for Old {
    fn read(&self, _: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(OLD.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }
}

#[derive(Default)]
struct Check(Vec<u8>);

impl MadeSink for Check {
    fn begin(&mut self, _: usize, from: u64) -> io::Result<()> {
        assert_eq!(from, self.0.len() as u64);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        assert_eq!(Sha256::of(&std::mem::take(&mut self.0)), sha256);
        Ok(())
    }
}

fuzz_target!(init: seeds::write(seeds), |bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut buffer = OLD.repeat(40);
    let mut out = Vec::new();
    match kind % 3 {
        0 => {
            let mut tables = patch::Tables::default();
            let _refused_or_not = patch::unpack(bytes, &mut buffer, 1500, &mut out, &mut tables);
            assert!(out.len() <= 1500);
        }
        1 => {
            let before = buffer.len();
            let _refused_or_not = text::unpack(bytes, &mut buffer, 1500, Kind::Text);
            assert!(buffer.len() <= before + 1500);
        }
        _ => whole(bytes),
    }
});

/// The tree a device has.
fn old() -> Tree {
    let mut old = Tree::default();
    let entry = |executable| Entry::File { size_bytes: OLD.len() as u64, sha256: Sha256::of(OLD), executable };
    for (path, executable) in [("app/main.py", false), ("lib/x-1.dist-info/RECORD", true)] {
        old.insert(path.parse().unwrap(), entry(executable)).unwrap();
    }
    old
}

/// A delta whose plan is `bytes`: unpacked, because the fuzzer cannot guess what packs.
fn whole(bytes: &[u8]) {
    let old = old();
    // Ids and checks are hashes that it cannot guess either.
    let delta = for_fuzzing(&old, bytes);
    if let Ok(delta) = Delta::open(&delta[..]) {
        let _refused_or_not = delta.apply(&old, &Old, &mut Check::default());
    }
}

/// A tree whose files all have the same content.
struct Same(&'static [u8]);

impl Files for Same {
    fn read(&self, _: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(self.0.get(start..start + len).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let known = OLD.repeat(40);
    let texts: [&'static [u8]; 3] = [
        b"print('one')\nprint('three')\nprint('two')\n",
        b"import os\nprint('one')\nprint('two')\n",
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0 print('one') \0\0\0\0",
    ];
    let with = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let mut out = Vec::new();
    for new in texts {
        let packed = patch::pack(&known, new, &Layout::of(&known, new), 0, 0).expect("it packs");
        out.push(with(0, packed));
        out.push(with(1, text::pack(new, &known, Kind::Text).expect("it packs")));
        let mut tree = Tree::default();
        for (path, executable) in [("app/main.py", false), ("app/other.py", false), ("lib/x-1.dist-info/RECORD", true)] {
            let entry = Entry::File { size_bytes: new.len() as u64, sha256: Sha256::of(new), executable };
            tree.insert(path.parse().unwrap(), entry).unwrap();
        }
        let delta = make(&old(), &tree, &Old, &Same(new)).expect("nothing is missing");
        out.push(with(2, as_fuzzed(&delta).expect("a small plan")));
    }
    out
}
