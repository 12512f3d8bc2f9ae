//! Deltas of trees held in memory: round trips, sizes, damage.

use std::{collections::BTreeMap, io};

use proptest::prelude::*;

use super::*;
use crate::{Entry, Tree};

#[derive(Clone, Default, Debug)]
struct Memory(BTreeMap<RelPath, Vec<u8>>);

impl Memory {
    fn of(files: &[(&str, Vec<u8>)]) -> Self {
        Self(
            files
                .iter()
                .map(|(p, b)| (p.parse().unwrap(), b.clone()))
                .collect(),
        )
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        for (path, bytes) in &self.0 {
            let entry = Entry::File {
                size_bytes: bytes.len() as u64,
                sha256: Sha256::of(bytes),
                executable: path.as_str().starts_with("bin/"),
            };
            let _clashes_are_left_out = tree.insert(path.clone(), entry);
        }
        tree
    }
}

impl Files for Memory {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap();
        Ok(bytes
            .get(start..start + len)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .to_vec())
    }
}

#[derive(Default)]
struct Objects {
    done: BTreeMap<Sha256, Vec<u8>>,
    current: Option<(Sha256, Vec<u8>)>,
}

impl ObjectSink for Objects {
    fn begin(&mut self, sha256: Sha256, _: u64) -> io::Result<()> {
        self.current = Some((sha256, Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current.as_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (sha256, bytes) = self.current.take().unwrap();
        assert_eq!(
            Sha256::of(&bytes),
            sha256,
            "finish is only called for what is right"
        );
        self.done.insert(sha256, bytes);
        Ok(())
    }
}

fn applied(delta: &[u8], old: &Memory) -> Result<(Tree, Objects), DeltaError> {
    let mut objects = Objects::default();
    let tree = Delta::open(delta)?.apply(&old.tree(), old, &mut objects)?;
    Ok((tree, objects))
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn pair() -> (Memory, Memory) {
    let big = noise(1, 5 << 20);
    let mut changed = big.clone();
    changed.splice(4_500_000..4_500_010, *b"a small change in a large file");
    let old = Memory::of(&[
        ("app/main.py", b"print('one')\n".repeat(40)),
        ("bin/app", noise(2, 1000)),
        ("lib/big.so", big),
        ("lib/gone.py", b"x".to_vec()),
        ("site/x-1.2.dist-info/RECORD", noise(3, 30_000)),
    ]);
    let mut record = noise(3, 30_000);
    record.extend(b"one line more");
    let new = Memory::of(&[
        ("app/main.py", b"print('two')\n".repeat(41)),
        ("bin/app", noise(2, 1000)),
        ("bin/copy", noise(2, 1000)),
        ("empty", Vec::new()),
        ("lib/big.so", changed),
        ("site/x-1.3.dist-info/RECORD", record),
    ]);
    (old, new)
}

#[test]
fn a_delta_moves_what_changed_and_little_else() {
    let (old, new) = pair();
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    let (tree, objects) = applied(&delta, &old).unwrap();
    assert_eq!(tree, new.tree());
    for (path, _, sha256) in missing(&old.tree(), &tree) {
        assert_eq!(objects.done[&sha256], new.0[&path], "{path}");
    }
    assert!(
        delta.len() < 2000,
        "{} bytes for a change of some hundred",
        delta.len()
    );
    assert_eq!(
        delta,
        make(&old.tree(), &new.tree(), &old, &new).unwrap(),
        "same input, same bytes"
    );
}

#[test]
fn a_delta_for_another_tree_is_refused() {
    let (old, new) = pair();
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    let error = applied(&delta, &new).map(|_| ()).unwrap_err();
    assert!(matches!(error, DeltaError::OtherTree { .. }), "{error}");
}

#[test]
fn no_flipped_byte_gets_through() {
    let (mut old, mut new) = pair();
    old.0.remove("lib/big.so");
    new.0.remove("lib/big.so");
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    for at in 0..delta.len() {
        let mut damaged = delta.clone();
        damaged[at] ^= 0x41;
        // Off the beaten track zstd may still decode the same bytes (a reserved bit): what counts
        // is that nothing wrong is handed on as right.
        if let Ok((tree, _)) = applied(&damaged, &old) {
            assert_eq!(tree, new.tree(), "byte {at}");
        }
        assert!(applied(&delta[..at], &old).is_err(), "cut at {at}");
    }
}

#[test]
fn claims_beyond_the_bounds_are_refused_before_memory_is_taken() {
    let (old, new) = pair();
    let mut delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    delta[72..76].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Delta::open(&delta[..]),
        Err(DeltaError::Damaged(_))
    ));
    for plan in [
        "@\nb 99999999999 - 0 0 1\n",
        "@\nb 1 - 0 0 99999999999\n",
        "@\nb 1 0 0 99999999999 1\n",
        "@\nb 0 - 0 0 0\n",
        "= 18446744073709551616\n@\n",
        "= 1\n",
    ] {
        assert!(plan::parse(plan).is_err(), "{plan}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_becomes_any_other(
        old in prop::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,2}", prop::collection::vec(0u8..4, 0..300), 0..12),
        new in prop::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,2}", prop::collection::vec(0u8..4, 0..300), 0..12),
    ) {
        let memory = |files: BTreeMap<String, Vec<u8>>| {
            Memory(files.into_iter().map(|(p, b)| (p.parse().unwrap(), b)).collect())
        };
        let (old, new) = (memory(old), memory(new));
        let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
        let (tree, objects) = applied(&delta, &old).unwrap();
        prop_assert_eq!(&tree, &new.tree());
        for (path, _, sha256) in missing(&old.tree(), &tree) {
            prop_assert_eq!(&objects.done[&sha256], &new.0[&path]);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut delta = MAGIC.to_vec();
        delta.extend(bytes);
        let _refused_or_not = Delta::open(&delta[..]);
    }
}
