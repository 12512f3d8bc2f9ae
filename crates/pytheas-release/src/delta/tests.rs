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

/// What was made, under the hash that was computed for it.
#[derive(Default)]
struct Made {
    done: BTreeMap<Sha256, Vec<u8>>,
    current: Vec<u8>,
}

impl MadeSink for Made {
    fn begin(&mut self, _: usize, from: u64) -> io::Result<()> {
        assert_eq!(self.current.len() as u64, from, "goes on where it stopped");
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        let content = std::mem::take(&mut self.current);
        assert_eq!(Sha256::of(&content), sha256);
        self.done.insert(sha256, content);
        Ok(())
    }
}

fn applied(delta: &[u8], old: &Memory) -> Result<(Tree, Made), DeltaError> {
    let mut made = Made::default();
    let tree = Delta::open(delta)?.apply(&old.tree(), old, &mut made)?;
    Ok((tree, made))
}

/// Applies `delta` and compares every content with what `new` has.
fn assert_makes(delta: &[u8], old: &Memory, new: &Memory) {
    let (tree, made) = applied(delta, old).unwrap();
    assert_eq!(tree, new.tree());
    for (path, _, sha256) in missing(&old.tree(), &tree) {
        assert_eq!(made.done[&sha256], new.0[&path], "{path}");
    }
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
    assert_makes(&delta, &old, &new);
    assert!(
        delta.len() < 700,
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
fn a_file_that_moved_and_changed_a_little_is_found_by_its_content() {
    let text = |seed, lines: usize| -> Vec<u8> {
        noise(seed, lines * 8)
            .chunks(8)
            .flat_map(|chunk| format!("    value = {chunk:?}\n").into_bytes())
            .collect()
    };
    let mut changed = text(7, 300);
    changed.splice(100..120, *b"# here is something else");
    let old = Memory::of(&[("a/one.py", text(5, 300)), ("b/two.py", text(7, 300))]);
    let new = Memory::of(&[
        ("a/one.py", text(5, 300)),
        ("vendor/deep/renamed.py", changed),
    ]);
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    assert_makes(&delta, &old, &new);
    assert!(delta.len() < 260, "{} bytes", delta.len());
}

#[test]
fn the_record_of_an_installed_package_costs_little() {
    let record = |files: &[(&str, Vec<u8>)]| {
        let tree = Memory::of(files).tree();
        let path: RelPath = "lib/x-1.dist-info/RECORD".parse().unwrap();
        let long: String = tree
            .files()
            .map(|(path, ..)| format!("{},=\n", &path.as_str()[4..]))
            .collect();
        let lookup = |path: &str| match tree.get(&path.parse().ok()?)? {
            Entry::File {
                size_bytes, sha256, ..
            } => Some((*size_bytes, *sha256)),
            _ => None,
        };
        let len = long.lines().count() * 60 + 10_000;
        // Its length is not known beforehand here.
        (0..len)
            .rev()
            .find_map(|len| records::restore(&path, long.as_bytes(), &lookup, len))
            .unwrap()
    };
    let version = |version: u8| -> Memory {
        let names: Vec<String> = (0..40).map(|n| format!("lib/x/module_{n}.py")).collect();
        let mut files: Vec<(&str, Vec<u8>)> = names
            .iter()
            .map(|name| (name.as_str(), format!("{name} {version}\n").into_bytes()))
            .collect();
        let text = record(&files);
        files.push(("lib/x-1.dist-info/RECORD", text));
        Memory::of(&files)
    };
    let (old, new) = (version(1), version(2));
    let (delta, summary) = make_with_summary(&old.tree(), &new.tree(), &old, &new).unwrap();
    assert_makes(&delta, &old, &new);
    let records = summary
        .parts
        .iter()
        .find(|part| part.method == "records")
        .unwrap();
    assert!(
        records.size_bytes > 2000 && records.packed_bytes < 40,
        "{records:?}"
    );
}

#[test]
fn a_large_file_is_made_in_parts_and_each_part_can_be_the_last_before_a_break() {
    let big = noise(1, SEGMENT_MAX * 2 + 1000);
    let mut changed = big.clone();
    changed.splice(9_000_000..9_000_010, *b"a change in the middle");
    changed[20] ^= 1;
    let small = |n: u8| vec![n; 300];
    let old = Memory::of(&[("big.bin", big), ("a.py", small(1))]);
    let new = Memory::of(&[("big.bin", changed), ("a.py", small(2))]);
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    assert!(delta.len() < 2000, "{} bytes", delta.len());
    assert_makes(&delta, &old, &new);

    let head = Head::read(&mut &delta[..]).unwrap();
    let (tree, mut kept, mut made) = (old.tree(), Vec::new(), Made::default());
    loop {
        // Everything but what was kept is forgotten between segments.
        let mut applier = Applier::new(head.clone(), &tree).unwrap();
        for progress in &kept {
            let mut hasher = crate::Hasher::new();
            if let Progress {
                open: Some((_, len, _)),
                ..
            } = progress
            {
                hasher.update(&new.0["big.bin"][..*len as usize]);
                let other = crate::Hasher::new();
                assert!(!applier.skip(progress, Some(other)), "the half is another");
            }
            assert!(!applier.skip(&Progress::default(), None));
            assert!(applier.skip(progress, Some(hasher)));
        }
        let Some(place) = applier.place() else {
            assert_eq!(applier.finish(&old).unwrap(), new.tree());
            break;
        };
        let packed = &delta[place as usize..][..applier
            .unpacker()
            .packed_len(applier.next_segment())
            .unwrap()];
        kept.push(applier.step(packed, &old, &mut made).unwrap());
    }
    assert!(kept.len() >= 4, "{kept:?}");
}

#[test]
fn an_old_file_that_has_rotted_is_named() {
    let (old, new) = pair();
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    let mut rotten = old.clone();
    let main = "app/main.py".parse::<RelPath>().unwrap();
    for byte in rotten.0.get_mut(&main).unwrap() {
        *byte ^= 1;
    }
    let result = Delta::open(&delta[..])
        .unwrap()
        .apply(&old.tree(), &rotten, &mut Made::default());
    let error = result.unwrap_err();
    assert!(
        matches!(&error, DeltaError::OldContent { path } if path.as_str() == "app/main.py"),
        "{error}"
    );
}

/// Files that tell how many bytes were asked for at once.
struct Asked(Memory, std::sync::atomic::AtomicUsize);

impl Files for Asked {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.1.fetch_max(len, std::sync::atomic::Ordering::Relaxed);
        self.0.read(path, offset, len)
    }
}

#[test]
fn a_head_that_looks_back_at_more_than_is_allowed_has_no_file_read_whole() {
    let (old, new) = pair();
    let delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
    // As the head has it, this file is much longer than any segment may look back at.
    let mut tree = Tree::default();
    for (path, entry) in old.tree().iter() {
        let mut entry = entry.clone();
        if let Entry::File { size_bytes, .. } = &mut entry
            && path.as_str() == "app/main.py"
        {
            *size_bytes = 1 << 40;
        }
        tree.insert(path.clone(), entry).unwrap();
    }
    let head = Delta::open(&delta[..]).unwrap().head().clone();
    let entries: Vec<_> = tree.iter().collect();
    let main = entries
        .iter()
        .position(|(path, _)| path.as_str() == "app/main.py");
    let number = head.segments.iter().position(|segment| {
        let mut old = segment.old.iter();
        old.any(|piece| Some(piece.entry) == main && piece.part.is_none())
    });
    let number = number.expect("its changed lines are made from it");
    let place: usize = head.segments[..number]
        .iter()
        .map(|one| one.packed_len)
        .sum();
    let len = head.segments[number].packed_len;
    let body = delta.len()
        - head
            .segments
            .iter()
            .map(|one| one.packed_len)
            .sum::<usize>();
    let files = Asked(old.clone(), 0.into());
    let unpacker = unpack::Unpacker::new(head, entries);
    let packed = &delta[body + place..][..len];
    let workspace = &mut unpack::Workspace::default();
    let error = unpacker
        .unpack(number, packed, &files, workspace)
        .unwrap_err();
    assert!(matches!(error, DeltaError::Damaged(_)), "{error}");
    let most = files.1.into_inner();
    assert!(most <= 256 << 10, "{most} bytes were asked for at once");
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
        assert!(applied(&damaged, &old).is_err(), "byte {at}");
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
    let piece = |content, part| plan::NewPiece {
        content,
        part,
        short: 0,
    };
    let segment = |method, new: Vec<plan::NewPiece>| plan::Segment {
        method,
        old: Vec::new(),
        new,
        packed_len: 3,
        check: [0; 8],
    };
    use plan::Method::{Patch, Text};
    let too_long = SEGMENT_MAX as u64 + 1;
    for (why, sizes, segments) in [
        ("nothing makes it", vec![5], vec![]),
        (
            "too long",
            vec![too_long],
            vec![segment(Text, vec![piece(0, None)])],
        ),
        (
            "no such content",
            vec![5],
            vec![segment(Text, vec![piece(0, None), piece(1, None)])],
        ),
        (
            "made twice",
            vec![5],
            vec![segment(Text, vec![piece(0, None), piece(0, None)])],
        ),
        (
            "only a part",
            vec![5],
            vec![segment(Text, vec![piece(0, Some((0, 4)))])],
        ),
        (
            "from the middle",
            vec![5],
            vec![segment(Text, vec![piece(0, Some((1, 4)))])],
        ),
        (
            "beyond its end",
            vec![5],
            vec![segment(Text, vec![piece(0, Some((0, 6)))])],
        ),
        (
            "a patch of nothing",
            vec![5],
            vec![segment(Patch, vec![piece(0, None)])],
        ),
    ] {
        let plan = plan::encode(&[], &sizes, &segments);
        assert!(plan::parse(&plan).is_err(), "{why}");
        assert!(
            plan::parse(&plan[..plan.len() - 1]).is_err(),
            "{why}, cut short"
        );
    }
}

/// A change of a file: where, how many bytes go, what comes.
fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let one = (
        any::<usize>(),
        0..200_usize,
        prop::collection::vec(any::<u8>(), 0..60),
    );
    prop::collection::vec(one, 0..6)
}

fn edited(mut bytes: Vec<u8>, edits: Vec<(usize, usize, Vec<u8>)>) -> Vec<u8> {
    for (at, gone, come) in edits {
        let at = at % (bytes.len() + 1);
        let to = (at + gone).min(bytes.len());
        bytes.splice(at..to, come);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
        let (tree, made) = applied(&delta, &old).unwrap();
        prop_assert_eq!(&tree, &new.tree());
        for (path, _, sha256) in missing(&old.tree(), &tree) {
            prop_assert_eq!(&made.done[&sha256], &new.0[&path]);
        }
    }

    #[test]
    fn any_edit_of_texts_and_binaries_comes_out_right_and_no_damage_does(
        seed in any::<u64>(),
        binary in edits(),
        text in edits(),
        damage in prop::collection::vec((any::<usize>(), 1..=255_u8), 1..4),
    ) {
        let code = noise(seed, 30_000);
        let words = b"def f(x):\n    return x + 1\n".repeat(100);
        let old = Memory::of(&[("lib.so", code.clone()), ("x.py", words.clone())]);
        let new = Memory::of(&[("lib.so", edited(code, binary)), ("y.py", edited(words, text))]);
        let mut delta = make(&old.tree(), &new.tree(), &old, &new).unwrap();
        assert_makes(&delta, &old, &new);
        for (at, flip) in damage {
            let len = delta.len();
            delta[at % len] ^= flip;
        }
        if let Ok((tree, _)) = applied(&delta, &old) {
            prop_assert_eq!(tree, new.tree());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut delta = MAGIC.to_vec();
        delta.extend(&bytes);
        let _refused_or_not = Delta::open(&delta[..]);
        let _refused_or_not = plan::parse(&bytes);
        let _refused_or_not = steps::decode(&bytes, &pair().0.tree());
    }
}
