//! Addresses in machine code: where they lie in the old file, and where they point afterwards.
//!
//! When a program is linked anew, most of its code stays as it is and moves; what changes
//! everywhere are the addresses. The copies of a patch say how each piece of the old file moves, so
//! the addresses in a copied piece can be moved along before the rest is compared. The packer finds
//! out (from ELF's headers) where addresses lie and in which form, and writes that down as
//! [`Field`]s; the device only follows.

use std::collections::BTreeMap;

use crate::{Damaged, number};

/// A form of addresses, and the piece of the old file that has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) form: Form,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// How addresses are written. Little endian throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// 8 bytes at any offset.
    Loose64,
    /// 8 bytes at multiples of 8 from the start of the piece.
    Table64,
    /// 4 bytes at multiples of 4.
    Table32,
    /// 4 bytes at multiples of 4, relative to their own place.
    Relative32,
    /// 4 bytes at multiples of 4, relative to the start of the piece.
    Offsets32,
    /// Operands of x86-64 instructions, 4 bytes relative to what follows them.
    CodeX86,
    /// Operands of AArch64 instructions: calls, branches and page addresses.
    CodeArm64,
}

pub(crate) const FORMS: [Form; 7] = [
    Form::Loose64,
    Form::Table64,
    Form::Table32,
    Form::Relative32,
    Form::Offsets32,
    Form::CodeX86,
    Form::CodeArm64,
];

/// A range of addresses of the old program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) address: u64,
    pub(crate) len: u64,
    /// Where its bytes lie in the old file; without: not in the file.
    pub(crate) offset: Option<u64>,
    /// What is added to an offset in the new file to get an address (to an address of the old
    /// program, when it has no bytes).
    pub(crate) bias: i64,
}

/// A piece of the old file that is copied: old offset, new offset, length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) old: usize,
    pub(crate) new: usize,
    pub(crate) len: usize,
}

/// Moves addresses.
pub(crate) struct Mover {
    ranges: Vec<Range>,
    fields: Vec<Field>,
    /// Sorted by `old`.
    pieces: Vec<Piece>,
    /// For each 256 bytes of the old file the last piece that begins at or before them.
    pages: Vec<u32>,
}

/// Most fields a patch may have.
const FIELDS_MAX: usize = 4096;
/// Most ranges: each address is looked for in all of them (a program has a handful).
const RANGES_MAX: usize = 64;

impl Mover {
    pub(crate) fn new(
        ranges: Vec<Range>,
        fields: Vec<Field>,
        pieces: &[Piece],
        old_len: usize,
    ) -> Self {
        let mut pieces = if ranges.is_empty() || fields.is_empty() {
            Vec::new()
        } else {
            without_overlap(pieces)
        };
        pieces.sort_by_key(|piece| piece.old);
        let mut pages = Vec::new();
        if !pieces.is_empty() {
            let mut at = 0_usize;
            for page in 0..=old_len >> 8 {
                while at + 1 < pieces.len() && pieces[at + 1].old <= page << 8 {
                    at += 1;
                }
                pages.push(at as u32);
            }
        }
        Self {
            ranges,
            fields,
            pieces,
            pages,
        }
    }

    #[cfg(any(feature = "encode", test))]
    pub(crate) fn encode(ranges: &[Range], fields: &[Field]) -> Vec<u8> {
        let mut out = Vec::new();
        number::put(&mut out, ranges.len() as u64);
        for range in ranges {
            number::put(&mut out, range.address);
            number::put(&mut out, range.len);
            number::put(
                &mut out,
                range.offset.map_or(0, |offset| offset.wrapping_add(1)),
            );
            number::put_signed(&mut out, range.bias);
        }
        number::put(&mut out, fields.len() as u64);
        let mut last = 0;
        for field in fields {
            number::put(&mut out, field.form as u64);
            number::put_signed(&mut out, field.start as i64 - last);
            number::put(&mut out, field.len as u64);
            last = (field.start + field.len) as i64;
        }
        out
    }

    pub(crate) fn parse(
        bytes: &mut &[u8],
        old_len: usize,
    ) -> Result<(Vec<Range>, Vec<Field>), Damaged> {
        let (mut ranges, mut fields) = (Vec::new(), Vec::new());
        for _ in 0..number::get_up_to(bytes, RANGES_MAX)? {
            ranges.push(Range {
                address: number::get(bytes)?,
                len: number::get(bytes)?,
                offset: number::get(bytes)?.checked_sub(1),
                bias: number::get_signed(bytes)?,
            });
        }
        let mut last = 0_i64;
        for _ in 0..number::get_up_to(bytes, FIELDS_MAX)? {
            let form = FORMS[number::get_up_to(bytes, FORMS.len() - 1)?];
            let start = last
                .checked_add(number::get_signed(bytes)?)
                .and_then(|start| usize::try_from(start).ok())
                .filter(|start| *start <= old_len)
                .ok_or(Damaged("an address field lies outside"))?;
            let len = number::get_up_to(bytes, old_len - start)?;
            if len == 0 {
                // Many at one place would be gone through for each copy.
                return Err(Damaged("an address field is empty"));
            }
            last = (start + len) as i64;
            fields.push(Field { form, start, len });
        }
        if fields
            .windows(2)
            .any(|pair| pair[0].start + pair[0].len > pair[1].start)
        {
            return Err(Damaged("address fields overlap"));
        }
        Ok((ranges, fields))
    }

    /// Where the old address `address` is in the new program, as the difference.
    #[inline]
    fn shift(&self, address: u64) -> Option<i64> {
        let range = self
            .ranges
            .iter()
            .find(|range| address.wrapping_sub(range.address) < range.len)?;
        let Some(offset) = range.offset else {
            return Some(range.bias);
        };
        let old = offset.wrapping_add(address.wrapping_sub(range.address));
        let new = self.moved(old)?;
        Some(new.wrapping_add(range.bias).wrapping_sub(address as i64))
    }

    /// Where the byte at `old` of the old file is in the new one.
    #[inline]
    fn moved(&self, old: u64) -> Option<i64> {
        let page = usize::try_from(old >> 8).ok()?;
        let mut at = *self.pages.get(page)? as usize;
        while at + 1 < self.pieces.len() && self.pieces[at + 1].old as u64 <= old {
            at += 1;
        }
        let piece = self.pieces.get(at)?;
        Some((piece.new as i64).wrapping_add(old as i64 - piece.old as i64))
    }

    fn address_of(&self, offset: usize) -> Option<(u64, i64)> {
        let range = self.ranges.iter().find(|range| {
            range
                .offset
                .is_some_and(|start| (offset as u64).wrapping_sub(start) < range.len)
        })?;
        let start = range.offset?;
        Some((
            range
                .address
                .wrapping_add((offset as u64).wrapping_sub(start)),
            range.bias,
        ))
    }

    /// Moves the addresses in a copy of `piece`; `out` is the copy.
    pub(crate) fn run(&self, old: &[u8], piece: Piece, out: &mut [u8]) {
        if self.pieces.is_empty() {
            return;
        }
        let end = piece.old + piece.len;
        let first = self
            .fields
            .partition_point(|field| field.start + field.len <= piece.old);
        for field in &self.fields[first..] {
            if field.start >= end {
                break;
            }
            let from = field.start.max(piece.old);
            let to = (field.start + field.len).min(end);
            self.field(*field, old, from, to, piece, out);
        }
    }

    /// Moves all addresses in a copy of the old piece.
    #[cfg(any(feature = "encode", test))]
    pub(crate) fn run_everywhere(&self, old: &[u8], out: &mut [u8]) {
        for piece in &self.pieces {
            self.run(old, *piece, &mut out[piece.old..piece.old + piece.len]);
        }
    }

    fn field(
        &self,
        field: Field,
        old: &[u8],
        from: usize,
        to: usize,
        piece: Piece,
        out: &mut [u8],
    ) {
        // Everything relative needs to know where the piece is, before and after.
        let (old_base, new_base) = match self.address_of(from) {
            Some((address, bias)) => {
                let new = (piece.new + (from - piece.old)) as i64;
                (
                    address.wrapping_sub(from as u64),
                    new.wrapping_add(bias).wrapping_sub(from as i64),
                )
            }
            None => (0, 0),
        };
        let own_shift = new_base.wrapping_sub(old_base as i64);
        let aligned = |step: usize| field.start + (from - field.start).next_multiple_of(step);
        let mut write32 = |at: usize, value: u32| {
            out[at - piece.old..][..4].copy_from_slice(&value.to_le_bytes());
        };
        match field.form {
            Form::Loose64 => {
                let mut at = from;
                while at + 8 <= to {
                    let value = read64(old, at);
                    // Programs lie below 2^40; 0 is no address.
                    if value != 0
                        && value >> 40 == 0
                        && value > 0xff
                        && let Some(shift) = self.shift(value)
                    {
                        out[at - piece.old..][..8]
                            .copy_from_slice(&value.wrapping_add(shift as u64).to_le_bytes());
                        at += 8;
                    } else {
                        at += 1;
                    }
                }
            }
            Form::Table64 => {
                for at in (aligned(8)..to.saturating_sub(7)).step_by(8) {
                    let value = read64(old, at);
                    if value != 0
                        && let Some(shift) = self.shift(value)
                    {
                        out[at - piece.old..][..8]
                            .copy_from_slice(&value.wrapping_add(shift as u64).to_le_bytes());
                    }
                }
            }
            Form::Table32 => {
                for at in (aligned(4)..to.saturating_sub(3)).step_by(4) {
                    let value = read32(old, at);
                    if value != 0
                        && let Some(shift) = self.shift(u64::from(value))
                    {
                        write32(at, value.wrapping_add(shift as u32));
                    }
                }
            }
            Form::Relative32 => {
                for at in (aligned(4)..to.saturating_sub(3)).step_by(4) {
                    let value = read32(old, at);
                    let target = old_base
                        .wrapping_add(at as u64)
                        .wrapping_add(value as i32 as u64);
                    if value != 0
                        && let Some(shift) = self.shift(target)
                    {
                        write32(at, value.wrapping_add(shift.wrapping_sub(own_shift) as u32));
                    }
                }
            }
            Form::Offsets32 => {
                let base = old_base.wrapping_add(field.start as u64);
                let base_shift = self.shift(base).unwrap_or(0);
                for at in (aligned(4)..to.saturating_sub(3)).step_by(4) {
                    let value = read32(old, at);
                    let target = base.wrapping_add(value as i32 as u64);
                    if let Some(shift) = self.shift(target) {
                        write32(
                            at,
                            value.wrapping_add(shift.wrapping_sub(base_shift) as u32),
                        );
                    }
                }
            }
            Form::CodeX86 => {
                let mut at = from;
                while at + 6 <= to {
                    let operand = x86_operand(&old[at..at + 6]);
                    if operand == 0 || at + operand + 4 > to {
                        at += 1;
                        continue;
                    }
                    let place = at + operand;
                    let value = read32(old, place);
                    let target = old_base
                        .wrapping_add(place as u64 + 4)
                        .wrapping_add(value as i32 as u64);
                    match self.shift(target) {
                        Some(shift) => {
                            write32(
                                place,
                                value.wrapping_add(shift.wrapping_sub(own_shift) as u32),
                            );
                            at = place + 4;
                        }
                        None => at += 1,
                    }
                }
            }
            Form::CodeArm64 => {
                for at in (aligned(4)..to.saturating_sub(3)).step_by(4) {
                    let word = read32(old, at);
                    let here = old_base.wrapping_add(at as u64);
                    if word & 0x7c00_0000 == 0x1400_0000 {
                        // b, bl: 26 bits, in words
                        let distance = i64::from((word << 6) as i32 >> 4);
                        let target = here.wrapping_add(distance as u64);
                        if let Some(shift) = self.shift(target) {
                            let moved = distance.wrapping_add(shift).wrapping_sub(own_shift);
                            let operand = (moved >> 2) as u32 & 0x03ff_ffff;
                            write32(at, word & 0xfc00_0000 | operand);
                        }
                    } else if word & 0x9f00_0000 == 0x9000_0000 {
                        // adrp: 21 bits, in pages
                        let pages = i64::from(((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3) << 11)
                            << 32
                            >> 43;
                        let target = (here & !0xfff).wrapping_add((pages << 12) as u64);
                        // The page's middle stands for what lies on it.
                        if let Some(shift) = self.shift(target | 0x800) {
                            let new_here = here.wrapping_add(own_shift as u64) & !0xfff;
                            let new_target = (target | 0x800).wrapping_add(shift as u64) & !0xfff;
                            let moved = (new_target.wrapping_sub(new_here) >> 12) as u32;
                            write32(
                                at,
                                word & 0x9f00_001f
                                    | (moved & 3) << 29
                                    | (moved >> 2 & 0x7_ffff) << 5,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Copies shorter than this say nothing about where the old bytes went.
const TELLING: usize = 24;

/// The pieces that say where each old byte went: where copies overlap, the longest counts.
fn without_overlap(pieces: &[Piece]) -> Vec<Piece> {
    let mut order: Vec<&Piece> = pieces.iter().filter(|piece| piece.len >= TELLING).collect();
    order.sort_by_key(|piece| (std::cmp::Reverse(piece.len), piece.new));
    let mut taken: BTreeMap<usize, Piece> = BTreeMap::new();
    for piece in order {
        let mut from = piece.old;
        let end = piece.old + piece.len;
        while from < end {
            let before = taken.range(..=from).next_back().map(|(_, piece)| piece);
            if let Some(before) = before
                && before.old + before.len > from
            {
                from = before.old + before.len;
                continue;
            }
            let next = taken.range(from..).next().map_or(end, |(start, _)| *start);
            let to = next.min(end);
            let part = Piece {
                old: from,
                new: piece.new + (from - piece.old),
                len: to - from,
            };
            taken.insert(from, part);
            from = to;
        }
    }
    taken.into_values().collect()
}

fn read64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn read32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Where the relative operand of the instruction that may begin here lies; 0 when none does.
/// Guesses are allowed: the target is looked at as well.
#[inline]
fn x86_operand(code: &[u8]) -> usize {
    match code[0] {
        // call, jmp
        0xe8 | 0xe9 => 1,
        // jcc
        0x0f if code[1] & 0xf0 == 0x80 => 2,
        // Two-byte opcodes with an operand relative to the instruction pointer
        0x0f if code[2] & 0xc7 == 0x05 => 3,
        // One-byte opcodes with one: mov, lea, cmp, test, add, call and jmp through a table …
        0x00..=0x3f
        | 0x63
        | 0x69
        | 0x6b
        | 0x80
        | 0x81
        | 0x83..=0x8f
        | 0xc6
        | 0xc7
        | 0xd8..=0xdf
        | 0xf6
        | 0xf7
        | 0xfe
        | 0xff
            if code[1] & 0xc7 == 0x05 =>
        {
            2
        }
        _ => 0,
    }
}
