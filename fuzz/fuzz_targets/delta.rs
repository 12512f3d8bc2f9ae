//! Deltas against a fixed old tree: nothing wrong is ever handed on as finished.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use pytheas_release::{
    Entry, RelPath, Sha256, Tree,
    delta::{Delta, Files, ObjectSink},
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
struct Check(Option<(Sha256, Vec<u8>)>);

impl ObjectSink for Check {
    fn begin(&mut self, sha256: Sha256, _: u64) -> io::Result<()> {
        self.0 = Some((sha256, Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.as_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (sha256, bytes) = self.0.take().unwrap();
        assert_eq!(Sha256::of(&bytes), sha256);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut old = Tree::default();
    let entry =
        Entry::File { size_bytes: OLD.len() as u64, sha256: Sha256::of(OLD), executable: false };
    old.insert("app/main.py".parse().unwrap(), entry).unwrap();
    // Give the fuzzer the ids for nothing: they are hashes it cannot guess.
    let mut delta = b"PYDELTA1".to_vec();
    delta.extend_from_slice(old.id().0.as_bytes());
    delta.extend_from_slice(bytes);
    if let Ok(delta) = Delta::open(&delta[..]) {
        let _refused_or_not = delta.apply(&old, &Old, &mut Check::default());
    }
});
