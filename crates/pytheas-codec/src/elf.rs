//! Where the addresses lie in an ELF file (System V ABI, little endian), for the packer.

use crate::fields::{Field, Form, Range};

/// What two versions of a program say about their addresses.
#[derive(Debug, Default, Clone)]
pub struct Layout {
    pub(crate) ranges: Vec<Range>,
    pub(crate) fields: Vec<Field>,
}

struct Program {
    wide: bool,
    machine: u16,
    /// flags, offset, address, size in the file, size in memory
    loads: Vec<(u32, u64, u64, u64, u64)>,
    /// name, kind, flags, offset, size
    sections: Vec<(Vec<u8>, u32, u64, u64, u64)>,
}

fn word(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(len)?)?;
    Some(
        part.iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

fn program(file: &[u8]) -> Option<Program> {
    let wide = match file.get(..6)? {
        b"\x7fELF\x02\x01" => true,
        b"\x7fELF\x01\x01" => false,
        _ => return None,
    };
    let size = if wide { 8 } else { 4 };
    let at = |narrow: usize, wider: usize| if wide { wider } else { narrow };
    let get = |offset: u64, narrow: usize, wider: usize, len: usize| {
        word(
            file,
            usize::try_from(offset)
                .ok()?
                .checked_add(at(narrow, wider))?,
            len,
        )
    };
    let (program_at, section_at) = (get(0, 28, 32, size)?, get(0, 32, 40, size)?);
    let (program_size, programs) = (get(0, 42, 54, 2)?, get(0, 44, 56, 2)?);
    let (section_size, sections) = (get(0, 46, 58, 2)?, get(0, 48, 60, 2)?);
    let names = get(0, 50, 62, 2)?;
    let mut loads = Vec::new();
    for number in 0..programs {
        let base = program_at.checked_add(number * program_size)?;
        if get(base, 0, 0, 4)? == 1 {
            loads.push((
                get(base, 24, 4, 4)? as u32,
                get(base, 4, 8, size)?,
                get(base, 8, 16, size)?,
                get(base, 16, 32, size)?,
                get(base, 20, 40, size)?,
            ));
        }
    }
    let section = |number: u64| {
        let base = section_at.checked_add(number.checked_mul(section_size)?)?;
        Some((
            get(base, 0, 0, 4)?,
            get(base, 4, 4, 4)? as u32,
            get(base, 8, 8, size)?,
            get(base, 16, 24, size)?,
            get(base, 20, 32, size)?,
        ))
    };
    let names_at = section(names)?.3;
    let mut found = Vec::new();
    for number in 0..sections {
        let (name, kind, flags, offset, len) = section(number)?;
        let name = file.get(usize::try_from(names_at.checked_add(name)?).ok()?..)?;
        let name = name.split(|byte| *byte == 0).next()?.to_vec();
        if kind != 0 && kind != 8 && offset.checked_add(len)? <= file.len() as u64 {
            found.push((name, kind, flags, offset, len));
        }
    }
    found.sort_by_key(|section| section.3);
    Some(Program {
        wide,
        machine: get(0, 18, 18, 2)? as u16,
        loads,
        sections: found,
    })
}

impl Layout {
    /// What the headers of two versions of a program say; nothing for other files.
    pub fn of(old: &[u8], new: &[u8]) -> Self {
        let (Some(old), Some(new)) = (program(old), program(new)) else {
            return Self::default();
        };
        if old.machine != new.machine || old.wide != new.wide {
            return Self::default();
        }
        let mut ranges = Vec::new();
        for (number, &(flags, offset, address, in_file, in_memory)) in old.loads.iter().enumerate()
        {
            let same_place = new.loads.get(number).filter(|load| load.0 == flags);
            let Some(load) = same_place.or_else(|| new.loads.iter().find(|load| load.0 == flags))
            else {
                continue;
            };
            ranges.push(Range {
                address,
                len: in_file,
                offset: Some(offset),
                bias: load.2.wrapping_sub(load.1) as i64,
            });
            if in_memory > in_file {
                let from = address.wrapping_add(in_file);
                let to = load.2.wrapping_add(load.3);
                ranges.push(Range {
                    address: from,
                    len: in_memory - in_file,
                    offset: None,
                    bias: to.wrapping_sub(from) as i64,
                });
            }
        }
        let mut fields: Vec<Field> = Vec::new();
        for (name, kind, flags, offset, len) in &old.sections {
            let table = if old.wide {
                Form::Table64
            } else {
                Form::Table32
            };
            let form = match (&name[..], kind) {
                (b".eh_frame_hdr", _) => Form::Offsets32,
                (b".eh_frame", _) => Form::Relative32,
                (
                    b".data" | b".data.rel.ro" | b".init_array" | b".fini_array" | b".got"
                    | b".got.plt" | b".dynamic",
                    _,
                ) => table,
                (_, 2 | 4 | 9 | 11) => table,
                (name, _) if name.starts_with(b".debug_") && old.wide => Form::Loose64,
                _ if flags & 4 != 0 && old.machine == 62 => Form::CodeX86,
                _ if flags & 4 != 0 && old.machine == 183 => Form::CodeArm64,
                _ => continue,
            };
            let (start, len) = (*offset as usize, *len as usize);
            if fields
                .last()
                .is_none_or(|last| last.start + last.len <= start)
            {
                fields.push(Field { form, start, len });
            }
        }
        Self { ranges, fields }
    }

    /// The same for a piece of the old file from `old_from` on, `old_len` long, and a piece of the
    /// new file from `new_from` on.
    pub(crate) fn piece(&self, old_from: usize, old_len: usize, new_from: usize) -> Self {
        // One byte before the piece: the offset cannot be written, and nothing lies there.
        let writable = |range: &&Range| {
            range
                .offset
                .is_none_or(|offset| offset.wrapping_sub(old_from as u64) != u64::MAX)
        };
        let ranges = self.ranges.iter().filter(writable).map(|range| Range {
            offset: range
                .offset
                .map(|offset| offset.wrapping_sub(old_from as u64)),
            bias: match range.offset {
                Some(_) => range.bias.wrapping_add(new_from as i64),
                None => range.bias,
            },
            ..*range
        });
        let fields = self.fields.iter().filter_map(|field| {
            let start = field.start.max(old_from);
            let end = (field.start + field.len).min(old_from + old_len);
            // Cut at multiples of 8 of the field, for those that are aligned.
            let start = field.start + (start - field.start).next_multiple_of(8);
            (start < end).then(|| Field {
                form: field.form,
                start: start - old_from,
                len: end - start,
            })
        });
        Self {
            ranges: ranges.collect(),
            fields: fields.collect(),
        }
    }
}
