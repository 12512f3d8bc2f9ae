//! Deltas made by somebody who knows the format and means harm: no panic, no more memory than is
//! promised, no tree but the promised one. `PYTHEAS_MUTATIONS=1000000` tries that many.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::{BTreeMap, BTreeSet},
    io,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use pytheas_release::{
    Entry, RelPath, Sha256, Tree,
    delta::{Delta, Files, MadeSink, make_with_summary, mutated},
};

/// What applying may take at most, whatever the delta says: what a segment reads and makes, twice
/// for records, and its tables.
const MEMORY_MAX: usize = 32 << 20;

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "the allocator's interface")]
// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Memory(BTreeMap<RelPath, Vec<u8>>);

impl Memory {
    fn of(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter();
        Self(
            files
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
                executable: false,
            };
            tree.insert(path.clone(), entry).unwrap();
        }
        tree
    }
}

impl Files for Memory {
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(bytes
            .get(start..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .to_vec())
    }
}

/// Checks that what is finished has the hash that is said.
#[derive(Default)]
struct Check(pytheas_release::Hasher, u64);

impl MadeSink for Check {
    fn begin(&mut self, _: usize, from: u64) -> io::Result<()> {
        assert_eq!(from, self.1, "goes on where it stopped");
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        self.1 = 0;
        assert_eq!(std::mem::take(&mut self.0).finish(), sha256);
        Ok(())
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Bytes like machine code with a table of addresses, under headers that say so.
fn program(moved: u64) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    out[18] = 62;
    let mut state = 99;
    let mut text: Vec<u8> = Vec::new();
    for number in 0..700_u64 {
        text.push(0xe8);
        let target = (random(&mut state) % 3000) as i64 - 64 - text.len() as i64;
        text.extend((target as i32).to_le_bytes());
        text.extend(random(&mut state).to_le_bytes());
        if number == 300 {
            text.extend(std::iter::repeat_n(0x90, moved as usize));
        }
    }
    let data: Vec<u8> = (0..200_u64)
        .flat_map(|n| (0x1000 + 64 + n * 40 + moved).to_le_bytes())
        .collect();
    let names = b"\0.text\0.data\0";
    let (text_at, data_at) = (64 + 56, 64 + 56 + text.len());
    let names_at = data_at + data.len();
    let sections_at = names_at + names.len();
    out[32..40].copy_from_slice(&64_u64.to_le_bytes());
    out[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
    for (at, value) in [(54, 56_u16), (56, 1), (58, 64), (60, 4), (62, 3)] {
        out[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    out.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    let end = sections_at as u64;
    out.extend(
        [0, 0x1000, 0x1000, end, end, 8]
            .map(u64::to_le_bytes)
            .concat(),
    );
    out.extend(&text);
    out.extend(&data);
    out.extend(names);
    for (name, kind, flags, at, len) in [
        (0_u32, 0_u32, 0_u64, 0, 0),
        (1, 1, 6, text_at, text.len()),
        (7, 1, 3, data_at, data.len()),
        (0, 3, 0, names_at, names.len()),
    ] {
        out.extend([name, kind].map(u32::to_le_bytes).concat());
        let words = [flags, 0, at as u64, len as u64, 0, 0, 0];
        out.extend(words.map(u64::to_le_bytes).concat());
    }
    out
}

fn pair() -> (Memory, Memory) {
    let text = |seed: usize| -> Vec<u8> {
        (0..120)
            .flat_map(|n| format!("line {n} of {}\n", n * seed % 37).into_bytes())
            .collect()
    };
    let record =
        b"x/a.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nx-1.dist-info/RECORD,,\n";
    let old = Memory::of(&[
        ("bin/app", program(0)),
        ("lib/a.py", text(5)),
        ("lib/x-1.dist-info/RECORD", record.to_vec()),
        ("lib/x/a.py", Vec::new()),
    ]);
    let mut more = record.to_vec();
    more.extend(b"x/b.py,,\n");
    let new = Memory::of(&[
        ("bin/app", program(24)),
        ("lib/a.py", text(6)),
        ("lib/b.py", text(7)),
        ("lib/x-2.dist-info/RECORD", more),
        ("lib/x/a.py", Vec::new()),
    ]);
    (old, new)
}

#[test]
fn no_delta_does_harm_whoever_made_it() {
    let count = std::env::var("PYTHEAS_MUTATIONS").map_or(3000, |count| count.parse().unwrap());
    let (old, new) = pair();
    let (old_tree, new_tree) = (old.tree(), new.tree());
    let (delta, summary) = make_with_summary(&old_tree, &new_tree, &old, &new).unwrap();
    let methods: BTreeSet<&str> = summary.parts.iter().map(|part| part.method).collect();
    assert_eq!(Vec::from_iter(methods), ["patch", "records", "text"]);
    let mut state = 0x1234_5678_9abc_def1_u64;
    let (mut tried, mut came, mut same, mut most) = (0_u64, 0_u64, 0_u64, 0);
    while tried < count {
        let seed = state;
        let below = &mut |max: usize| (random(&mut state) % max.max(1) as u64) as usize;
        let Some(bytes) = mutated(&delta, below) else {
            continue;
        };
        tried += 1;
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let result = Delta::open(&bytes[..]).and_then(|delta| {
            came += 1;
            delta.apply(&old_tree, &old, &mut Check::default())
        });
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        most = most.max(peak);
        assert!(
            peak <= MEMORY_MAX,
            "{peak} bytes of memory for the delta of seed {seed:#x}"
        );
        if let Ok(tree) = result {
            same += 1;
            assert_eq!(tree.id(), new_tree.id(), "seed {seed:#x}");
        }
    }
    println!(
        "{tried} tried, {came} with a plan that can be read, {same} still right; at most {most} bytes of memory"
    );
    assert!(
        came > tried / 4,
        "most are refused at once: nothing was tried"
    );
}
