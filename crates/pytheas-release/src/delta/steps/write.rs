//! Writes the steps.

use std::collections::HashMap;

use pytheas_codec::number;

use super::{ADD, AGAIN, CHANGE, KEEP, KNOWN, NEXT, SKIP};
use crate::{Entry, RelPath, Sha256, Tree};

/// Writes the steps; contents that `old` lacks are numbered in the order of their first path.
pub(in crate::delta) fn encode(old: &Tree, new: &Tree) -> Vec<u8> {
    let old_entries: Vec<(&RelPath, &Entry)> = old.iter().collect();
    let mut known: HashMap<Sha256, usize> = HashMap::new();
    for (number, (_, entry)) in old_entries.iter().enumerate() {
        if let Entry::File { sha256, .. } = entry {
            known.entry(*sha256).or_insert(number);
        }
    }
    let mut writer = Writer {
        out: Vec::new(),
        run: None,
        made: HashMap::new(),
        known,
        expected: 0,
    };
    let mut olds = old_entries.iter().peekable();
    let mut last = "";
    for (path, entry) in new.iter() {
        while olds.next_if(|(old_path, _)| *old_path < path).is_some() {
            writer.count(SKIP);
        }
        match olds.next_if(|(old_path, _)| *old_path == path) {
            Some((_, was)) if *was == entry => writer.count(KEEP),
            Some(_) => {
                writer.flush();
                number::put(&mut writer.out, CHANGE);
                writer.entry(entry);
            }
            None => {
                writer.flush();
                number::put(&mut writer.out, ADD);
                let shared = last
                    .bytes()
                    .zip(path.as_str().bytes())
                    .take_while(|(a, b)| a == b)
                    .count();
                number::put(&mut writer.out, shared as u64);
                put_bytes(&mut writer.out, &path.as_str().as_bytes()[shared..]);
                writer.entry(entry);
            }
        }
        last = path.as_str();
    }
    for _ in olds {
        writer.count(SKIP);
    }
    writer.flush();
    writer.out
}

struct Writer {
    out: Vec<u8>,
    run: Option<(u64, u64)>,
    made: HashMap<Sha256, usize>,
    known: HashMap<Sha256, usize>,
    expected: i64,
}

impl Writer {
    fn count(&mut self, what: u64) {
        match &mut self.run {
            Some((kind, count)) if *kind == what => *count += 1,
            _ => {
                self.flush();
                self.run = Some((what, 1));
            }
        }
    }

    fn flush(&mut self) {
        if let Some((kind, count)) = self.run.take() {
            number::put(&mut self.out, kind);
            number::put(&mut self.out, count);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let out = &mut self.out;
        match entry {
            Entry::File {
                sha256, executable, ..
            } => {
                let kind = |content: u64| content << 2 | u64::from(*executable);
                if let Some(old) = self.known.get(sha256) {
                    number::put(out, kind(KNOWN));
                    number::put_signed(out, *old as i64 - self.expected);
                    self.expected = *old as i64 + 1;
                } else if let Some(made) = self.made.get(sha256) {
                    number::put(out, kind(AGAIN));
                    number::put(out, *made as u64);
                } else {
                    self.made.insert(*sha256, self.made.len());
                    number::put(out, kind(NEXT));
                }
            }
            Entry::Symlink { target } => {
                number::put(out, 2);
                put_bytes(out, target.as_bytes());
            }
            Entry::Directory => number::put(out, 3),
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
