//! Shared libraries and programs without what only debuggers and linkers read: debug information
//! and the symbol table `.symtab` (`.dynsym`, which the loader reads, stays).
//!
//! The layout is the ELF specification's (gABI, chapters 4 and 5), for both classes and both byte
//! orders, so files of a foreign CPU are handled as the host's. Nothing that is loaded changes: the
//! content of each segment stays byte for byte, the build id and the unwind tables with it. Dropped
//! sections leave the table when that changes no loaded section's number, else they become entries of
//! empty data; what lies behind them in the file moves by whole pages. A file that is not understood,
//! or that has data behind its last section (a
//! self-extracting program), is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use walkdir::WalkDir;

use crate::{
    error::{BuildError, io_error},
    scratch::{self, Kind},
};

/// Files that would shrink by less stay as they are.
const LEAST_GAIN: usize = 512;

/// Strips every ELF file below `dir`; gives the bytes that this saved. Lines of changed files in
/// a `RECORD` lose hash and size, which may be left out there ("Recording installed projects").
pub(crate) fn tree(dir: &Path) -> Result<u64, BuildError> {
    below(dir, usize::MAX)
}

/// As [`tree`], only what lies in `dir` itself.
pub(crate) fn files(dir: &Path) -> Result<u64, BuildError> {
    below(dir, 1)
}

fn below(dir: &Path, depth: usize) -> Result<u64, BuildError> {
    let mut saved = 0_u64;
    let mut changed = BTreeSet::new();
    let mut records = Vec::new();
    for entry in WalkDir::new(dir).max_depth(depth) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(_) if !dir.exists() => return Ok(0),
            Err(error) => return Err(io_error("read", dir)(error.into())),
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path();
        if entry.file_name() == "RECORD" {
            records.push(path.to_owned());
        }
        let is_text = path
            .extension()
            .is_some_and(|end| end == "py" || end == "pyc");
        if is_text || !is_elf(path) {
            continue;
        }
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let Some(stripped) = strip(&bytes) else {
            continue;
        };
        let mode = fs::metadata(path)
            .map_err(io_error("read", path))?
            .permissions()
            .mode();
        let kind = if mode & 0o111 == 0 {
            Kind::Data
        } else {
            Kind::Program
        };
        scratch::write(path, &stripped, kind).map_err(io_error("write", path))?;
        saved += (bytes.len() - stripped.len()) as u64;
        changed.insert(path.to_owned());
    }
    if changed.is_empty() {
        return Ok(saved);
    }
    for record in records {
        forget_hashes(&record, &changed)?;
    }
    Ok(saved)
}

fn is_elf(path: &Path) -> bool {
    let mut head = [0; 4];
    fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head))
        .is_ok()
        && head == *b"\x7fELF"
}

/// A `RECORD` without hash and size of the files in `changed`.
fn forget_hashes(record: &Path, changed: &BTreeSet<std::path::PathBuf>) -> Result<(), BuildError> {
    let Some(site) = record.parent().and_then(Path::parent) else {
        return Ok(());
    };
    let Ok(text) = fs::read_to_string(record) else {
        return Ok(());
    };
    let mut is_changed = false;
    let lines: String = text
        .lines()
        .map(|line| {
            // Names with a comma are quoted; no shared object has one.
            let name = line.split(',').next().unwrap_or(line);
            if !line.starts_with('"') && changed.contains(&site.join(name)) {
                is_changed = true;
                format!("{name},,\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    if !is_changed {
        return Ok(());
    }
    scratch::write(record, lines.as_bytes(), Kind::Data).map_err(io_error("write", record))
}

/// Offsets of the fields that differ between the two classes.
struct Layout {
    is_64: bool,
    is_little: bool,
}

impl Layout {
    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let field = bytes.get(at..at.checked_add(width)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.is_little {
            field.iter().rev().fold(0, add)
        } else {
            field.iter().fold(0, add)
        })
    }

    fn index(&self, bytes: &[u8], at: usize, width: usize) -> Option<usize> {
        usize::try_from(self.number(bytes, at, width)?).ok()
    }

    fn set(&self, bytes: &mut [u8], at: usize, width: usize, value: usize) -> Option<()> {
        let field = bytes.get_mut(at..at.checked_add(width)?)?;
        let little = (value as u64).to_le_bytes();
        for (place, byte) in field.iter_mut().enumerate() {
            let from = if self.is_little {
                place
            } else {
                width - 1 - place
            };
            *byte = little[from];
        }
        Some(())
    }

    /// Width of an address or offset.
    fn word(&self) -> usize {
        if self.is_64 { 8 } else { 4 }
    }

    /// The 32-bit place or the 64-bit one.
    fn at(&self, narrow: usize, wide: usize) -> usize {
        if self.is_64 { wide } else { narrow }
    }
}

const LOAD: u64 = 1;
const SYMBOLS: u64 = 2;
const NO_BITS: u64 = 8;
const ALLOCATED: u64 = 2;
const INFO_IS_LINK: u64 = 0x40;

struct Section {
    name: Vec<u8>,
    kind: u64,
    flags: u64,
    offset: usize,
    size: usize,
    link: usize,
    info: usize,
    align: usize,
}

impl Section {
    fn end(&self) -> Option<usize> {
        let size = if self.kind == NO_BITS { 0 } else { self.size };
        self.offset.checked_add(size)
    }
}

struct Segment {
    kind: u64,
    offset: usize,
    size: usize,
    align: usize,
}

/// A part of the file that stays, and where it goes.
struct Range {
    from: usize,
    end: usize,
    /// Whether it is loaded: then it moves by whole pages only.
    is_loaded: bool,
    to: usize,
}

/// The file without debug information and symbol table; none when nothing is gained, or the file
/// is not understood.
pub(crate) fn strip(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"\x7fELF") || !matches!(bytes.get(6)?, 1) {
        return None;
    }
    let layout = Layout {
        is_64: match bytes.get(4)? {
            1 => false,
            2 => true,
            _ => return None,
        },
        is_little: match bytes.get(5)? {
            1 => true,
            2 => false,
            _ => return None,
        },
    };
    // Programs and shared objects; objects for a linker need their symbols.
    if !matches!(layout.number(bytes, 16, 2)?, 2 | 3) {
        return None;
    }
    let header_size = layout.at(52, 64);
    let segments_at = layout.index(bytes, layout.at(28, 32), layout.word())?;
    let sections_at = layout.index(bytes, layout.at(32, 40), layout.word())?;
    let tail = layout.at(40, 52); // e_ehsize and what follows
    let segment_size = layout.index(bytes, tail + 2, 2)?;
    let segment_count = layout.index(bytes, tail + 4, 2)?;
    let section_size = layout.index(bytes, tail + 6, 2)?;
    let section_count = layout.index(bytes, tail + 8, 2)?;
    let names_index = layout.index(bytes, tail + 10, 2)?;
    if layout.index(bytes, tail, 2)? != header_size
        || segment_size != layout.at(32, 56)
        || section_size != layout.at(40, 64)
        || segment_count == 0xffff
        || segment_count == 0
        || section_count < 2
        || names_index >= section_count
    {
        return None;
    }
    let segments = (0..segment_count)
        .map(|index| segment(&layout, bytes, segments_at + index * segment_size))
        .collect::<Option<Vec<_>>>()?;
    let sections = sections(&layout, bytes, sections_at, section_count, names_index)?;
    let segments_end = segments_at.checked_add(segment_count * segment_size)?;
    let sections_end = sections_at.checked_add(section_count * section_size)?;
    let page = segments
        .iter()
        .filter(|segment| segment.kind == LOAD)
        .map(|segment| segment.align.max(1))
        .max()?;
    if !page.is_power_of_two() {
        return None;
    }
    // Data behind everything that the headers know belongs to somebody.
    let last = sections
        .iter()
        .map(Section::end)
        .chain(segments.iter().map(|s| s.offset.checked_add(s.size)))
        .chain([Some(sections_end), Some(segments_end)])
        .try_fold(0, |last: usize, end| end.map(|end| last.max(end)))?;
    if last > bytes.len() || bytes[last..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let dropped = dropped(&sections, names_index)?;
    if dropped.is_empty() {
        return None;
    }

    let mut ranges = ranges(&sections, &segments, &dropped, header_size);
    ranges.push((segments_at, segments_end, true));
    let align = sections
        .iter()
        .filter(|section| section.flags & ALLOCATED == 0)
        .map(|section| section.align)
        .max()
        .unwrap_or(1)
        .clamp(8, 4096);
    let ranges = placed(ranges, page, align)?;
    let mut out = Vec::with_capacity(bytes.len());
    for range in &ranges {
        out.resize(range.to, 0);
        out.extend_from_slice(bytes.get(range.from..range.end)?);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table_at = out.len();
    // Symbols name the sections they lie in by number: the numbers of loaded ones stay. Entries
    // behind those close up, because not every reader of ELF takes empty ones.
    let first_dropped = *dropped.first()?;
    let may_close_up = sections
        .iter()
        .skip(first_dropped)
        .all(|section| section.flags & ALLOCATED == 0);
    let number = |index: usize| {
        if may_close_up {
            index - dropped.range(..index).count()
        } else {
            index
        }
    };
    let mut kept = 0;
    for (index, section) in sections.iter().enumerate() {
        let at = sections_at + index * section_size;
        let mut entry = bytes.get(at..at + section_size)?.to_vec();
        if dropped.contains(&index) {
            if may_close_up {
                continue;
            }
            entry.fill(0);
            // Empty data, not type 0: that one is for the first entry only, say some readers.
            layout.set(&mut entry, 4, 4, 1)?;
        } else {
            let to = moved(&ranges, section.offset)?;
            layout.set(&mut entry, layout.at(16, 24), layout.word(), to)?;
            layout.set(&mut entry, layout.at(24, 40), 4, number(section.link))?;
            if section.flags & INFO_IS_LINK != 0 {
                layout.set(&mut entry, layout.at(28, 44), 4, number(section.info))?;
            }
            kept = number(index) + 1;
        }
        out.extend_from_slice(&entry);
    }
    // Empty entries at the end are none.
    out.truncate(table_at + kept * section_size);
    let to = moved(&ranges, segments_at)?;
    layout.set(&mut out, layout.at(28, 32), layout.word(), to)?;
    layout.set(&mut out, layout.at(32, 40), layout.word(), table_at)?;
    layout.set(&mut out, tail + 8, 2, kept)?;
    layout.set(&mut out, tail + 10, 2, number(names_index))?;
    for (index, segment) in segments.iter().enumerate() {
        let place = to + index * segment_size + layout.at(4, 8);
        let offset = moved(&ranges, segment.offset)?;
        layout.set(&mut out, place, layout.word(), offset)?;
    }
    let is_gain = out.len() + LEAST_GAIN <= bytes.len();
    (is_gain && same_segments(&layout, bytes, &out, &segments, to, header_size)).then_some(out)
}

fn segment(layout: &Layout, bytes: &[u8], at: usize) -> Option<Segment> {
    let word = layout.word();
    Some(Segment {
        kind: layout.number(bytes, at, 4)?,
        offset: layout.index(bytes, at + layout.at(4, 8), word)?,
        size: layout.index(bytes, at + layout.at(16, 32), word)?,
        align: layout.index(bytes, at + layout.at(28, 48), word)?,
    })
}

fn sections(
    layout: &Layout,
    bytes: &[u8],
    table: usize,
    count: usize,
    names_index: usize,
) -> Option<Vec<Section>> {
    let size = layout.at(40, 64);
    let word = layout.word();
    let names_at = table.checked_add(names_index * size)?;
    let names = layout.index(bytes, names_at + layout.at(16, 24), word)?;
    (0..count)
        .map(|index| {
            let at = table.checked_add(index * size)?;
            let name = names.checked_add(layout.index(bytes, at, 4)?)?;
            let name = bytes.get(name..)?.split(|byte| *byte == 0).next()?;
            Some(Section {
                name: name.to_vec(),
                kind: layout.number(bytes, at + 4, 4)?,
                flags: layout.number(bytes, at + 8, word)?,
                offset: layout.index(bytes, at + layout.at(16, 24), word)?,
                size: layout.index(bytes, at + layout.at(20, 32), word)?,
                link: layout.index(bytes, at + layout.at(24, 40), 4)?,
                info: layout.index(bytes, at + layout.at(28, 44), 4)?,
                align: layout.index(bytes, at + layout.at(32, 48), word)?,
            })
        })
        .collect()
}

/// Which sections go; none when one that stays refers to one of them.
fn dropped(sections: &[Section], names_index: usize) -> Option<BTreeSet<usize>> {
    let starts = [
        ".debug_",
        ".zdebug_",
        ".rela.debug_",
        ".rel.debug_",
        ".stab",
        ".gnu.lto_",
        ".gnu.build.attributes",
    ];
    let names = [
        ".gdb_index",
        ".gnu_debuglink",
        ".gnu_debugaltlink",
        ".gnu_debugdata",
        ".comment",
    ];
    let mut dropped = BTreeSet::new();
    for (index, section) in sections.iter().enumerate().skip(1) {
        if section.flags & ALLOCATED != 0 || index == names_index {
            continue;
        }
        let name = String::from_utf8_lossy(&section.name);
        if section.kind == SYMBOLS {
            dropped.insert(index);
            // Its strings, unless the sections' names lie there too.
            if section.link != names_index && section.link < sections.len() {
                dropped.insert(section.link);
            }
        } else if names.contains(&name.as_ref())
            || starts.iter().any(|start| name.starts_with(start))
            || name == ".symtab_shndx"
        {
            dropped.insert(index);
        }
    }
    let refers = |section: &Section| {
        dropped.contains(&section.link)
            || section.flags & INFO_IS_LINK != 0 && dropped.contains(&section.info)
    };
    let is_whole = sections
        .iter()
        .enumerate()
        .filter(|(index, _)| !dropped.contains(index))
        .all(|(_, section)| !refers(section));
    let is_loaded = dropped
        .iter()
        .any(|index| sections[*index].flags & ALLOCATED != 0);
    (is_whole && !is_loaded).then_some(dropped)
}

fn ranges(
    sections: &[Section],
    segments: &[Segment],
    dropped: &BTreeSet<usize>,
    header_size: usize,
) -> Vec<(usize, usize, bool)> {
    let mut ranges = vec![(0, header_size, true)];
    ranges.extend(
        segments
            .iter()
            .filter(|segment| segment.size > 0)
            .map(|segment| (segment.offset, segment.offset + segment.size, true)),
    );
    ranges.extend(
        sections
            .iter()
            .enumerate()
            .filter(|(index, section)| {
                !dropped.contains(index) && section.kind != NO_BITS && section.size > 0
            })
            .map(|(_, section)| {
                let is_loaded = section.flags & ALLOCATED != 0;
                (section.offset, section.offset + section.size, is_loaded)
            }),
    );
    ranges
}

/// The ranges, joined where they meet, each as early as its alignment allows.
fn placed(mut ranges: Vec<(usize, usize, bool)>, page: usize, align: usize) -> Option<Vec<Range>> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (from, end, is_loaded) in ranges {
        match joined.last_mut() {
            Some(last) if from < last.end || (from == last.end && is_loaded == last.is_loaded) => {
                last.end = last.end.max(end);
                last.is_loaded |= is_loaded;
            }
            _ => joined.push(Range {
                from,
                end,
                is_loaded,
                to: 0,
            }),
        }
    }
    let mut out = 0;
    for range in &mut joined {
        let step = if range.is_loaded { page } else { align };
        range.to = out + range.from.checked_sub(out)? % step;
        out = range.to + (range.end - range.from);
    }
    Some(joined)
}

/// Where the byte at `offset` goes. Of what has no bytes in the file (`.bss`), only the place
/// relative to the pages counts.
fn moved(ranges: &[Range], offset: usize) -> Option<usize> {
    let inside = ranges
        .iter()
        .find(|range| range.from <= offset && offset < range.end);
    let range = match inside {
        Some(range) => range,
        None => ranges
            .iter()
            .rfind(|range| range.is_loaded && range.from <= offset)?,
    };
    offset.checked_sub(range.from - range.to)
}

/// Whether each segment has the content it had.
fn same_segments(
    layout: &Layout,
    before: &[u8],
    after: &[u8],
    segments: &[Segment],
    table: usize,
    header_size: usize,
) -> bool {
    let mut wanted = BTreeMap::new();
    for (index, old) in segments.iter().enumerate() {
        let Some(new) = segment(layout, after, table + index * layout.at(32, 56)) else {
            return false;
        };
        wanted.insert(old.offset, (new.offset, old.size));
        // The header and the table of segments, inside the first, are what was changed.
        let skipped = if old.offset < header_size || old.kind == 6 {
            (table + segments.len() * layout.at(32, 56))
                .max(header_size)
                .saturating_sub(old.offset)
                .min(old.size)
        } else {
            0
        };
        let content =
            |bytes: &[u8], at: usize| bytes.get(at + skipped..at + old.size).map(<[u8]>::to_vec);
        let is_aligned = old.kind != LOAD || old.align <= 1 || {
            old.offset % old.align == new.offset % old.align
        };
        if !is_aligned || content(before, old.offset) != content(after, new.offset) {
            return false;
        }
    }
    !wanted.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_program_is_smaller_and_runs() {
        let own = std::env::current_exe().unwrap();
        let before = fs::read(&own).unwrap();
        let after = strip(&before).unwrap();
        assert!(
            after.len() < before.len() * 3 / 4,
            "{} of {}",
            after.len(),
            before.len()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        scratch::write(&path, &after, Kind::Program).unwrap();
        let output = std::process::Command::new(&path)
            .arg("--list")
            .output()
            .unwrap();
        assert!(output.status.success());
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(names.contains("a_stripped_program_is_smaller_and_runs"));
        assert_eq!(
            strip(&after),
            None,
            "a second time there is nothing to gain"
        );
    }

    #[test]
    fn a_program_with_data_behind_it_is_left_alone() {
        let own = std::env::current_exe().unwrap();
        let mut bytes = fs::read(&own).unwrap();
        bytes.extend_from_slice(b"payload");
        assert_eq!(strip(&bytes), None);
    }

    #[test]
    fn a_record_forgets_the_hash_of_a_stripped_file() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let bytes = fs::read(&own).unwrap();
        scratch::write(&dir.path().join("x/_y.so"), &bytes, Kind::Data).unwrap();
        let record = dir.path().join("x-1.dist-info/RECORD");
        let text = b"x/_y.so,sha256=abc,12\nx/__init__.py,sha256=def,3\n";
        scratch::write(&record, text, Kind::Data).unwrap();
        assert!(tree(dir.path()).unwrap() > 0);
        let text = fs::read_to_string(&record).unwrap();
        assert_eq!(text, "x/_y.so,,\nx/__init__.py,sha256=def,3\n");
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_header_is_refused_or_changes_no_segment(at in 0_usize..1200, value: u8) {
            let mut bytes = crate::launcher::machine_code("x86_64").unwrap_or_default().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = strip(&bytes);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
            bytes.extend(tail);
            let _ = strip(&bytes);
        }
    }
}
