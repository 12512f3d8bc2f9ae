//! Patches: a new content as approximate copies out of one old piece, what is new in between, and
//! the differences in the copies.
//!
//! ```text
//! number   copies
//! each     signed number  where in the old piece, from where the last one ended
//!          number         how long
//!          number         bytes that are new after it
//! fields   see `fields`
//! number   length of the new bytes, packed
//! …        the new bytes (LZMA)
//! …        the differences (range coder)
//! ```
//! The table at the front is LZMA too. Differences are coded where they are, not as a stream of
//! zeros: the gap to the next differing byte, then what stands there. What an old four-byte value
//! became before is tried first.

use crate::{
    Damaged,
    fields::{Mover, Piece},
    number,
    range::{Bit, Coder, Decoder, Number},
    text::{self, Kind},
};

#[cfg(any(feature = "encode", test))]
mod find;
#[cfg(any(feature = "encode", test))]
mod make;

#[cfg(any(feature = "encode", test))]
pub use make::{for_fuzzing, pack};

/// Longest table, in bytes, and most copies: each costs the device about a hundred bytes.
const TABLE_MAX: usize = 1 << 20;
const COPIES_MAX: usize = 1 << 16;

/// The tables of the model (1.7 MB), to be used for one patch after the other: memory that the system
/// has given already costs less than new memory.
#[derive(Default)]
pub struct Tables(Option<Differences>);

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables")
    }
}

/// Appends the new content of exactly `len` bytes to `out`, made of the old piece in `buffer` and
/// of `packed`. The buffer grows by what is new.
///
/// # Errors
/// [`Damaged`]; `out` then holds part of it.
pub fn unpack(
    packed: &[u8],
    buffer: &mut Vec<u8>,
    len: usize,
    out: &mut Vec<u8>,
    tables: &mut Tables,
) -> Result<(), Damaged> {
    let old_len = buffer.len();
    let mut rest = packed;
    let head_len = number::get_up_to(&mut rest, TABLE_MAX)?;
    let head_packed = number::get_up_to(&mut rest, packed.len())?;
    let news_packed = number::get_up_to(&mut rest, packed.len())?;
    let (head, rest) = take(rest, head_packed)?;
    let (news, differences) = take(rest, news_packed)?;
    let mut table = Vec::new();
    text::unpack(head, &mut table, head_len, Kind::Binary)?;
    let mut table = &table[..];

    let count = number::get_up_to(&mut table, COPIES_MAX)?;
    let mut pieces = Vec::with_capacity(count);
    let (mut old_at, mut new_at, mut news_len) = (0_i64, 0_usize, 0_usize);
    for _ in 0..count {
        let start = old_at
            .checked_add(number::get_signed(&mut table)?)
            .and_then(|start| usize::try_from(start).ok())
            .filter(|start| *start <= old_len)
            .ok_or(Damaged("a copy begins outside the old piece"))?;
        let copied = number::get_up_to(&mut table, (old_len - start).min(len - new_at))?;
        let new = number::get_up_to(&mut table, len - new_at - copied)?;
        pieces.push(Piece {
            old: start,
            new: new_at,
            len: copied,
        });
        old_at = (start + copied) as i64;
        new_at += copied + new;
        news_len += new;
    }
    if new_at != len {
        return Err(Damaged("the copies are not as long as the file"));
    }
    let (ranges, fields) = Mover::parse(&mut table, old_len)?;
    let mover = Mover::new(ranges, fields, &pieces, old_len);
    text::unpack(news, buffer, news_len, Kind::Binary)?;
    let (old, mut new_bytes) = buffer.split_at(old_len);

    let begin = out.len();
    out.reserve_exact(len);
    let mut coder = Decoder::new(differences);
    let model = match &mut tables.0 {
        Some(model) => {
            model.forget();
            model
        }
        none => none.insert(Differences::new()),
    };
    for (number, piece) in pieces.iter().enumerate() {
        let at = out.len();
        out.extend_from_slice(&old[piece.old..piece.old + piece.len]);
        mover.run(old, *piece, &mut out[at..]);
        model.code(&mut coder, *piece, &mut out[at..], None);
        if coder.ran_out() {
            return Err(Damaged("it ends too early"));
        }
        let end = pieces
            .get(number + 1)
            .map_or(begin + len, |next| begin + next.new);
        let (between, rest) = new_bytes.split_at(end - out.len());
        out.extend_from_slice(between);
        new_bytes = rest;
    }
    Ok(())
}

fn take(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), Damaged> {
    bytes
        .split_at_checked(len)
        .ok_or(Damaged("a part of it is missing"))
}

/// What old values became: found again by the value itself or by its neighbourhood.
struct Memory {
    /// (old, new) by a hash of the old value.
    exact: Vec<(u32, u32)>,
    /// (neighbourhood, shift).
    near: Vec<(u32, u32)>,
}

const EXACT_BITS: u32 = 14;
const NEAR_BITS: u32 = 12;

impl Memory {
    fn new() -> Self {
        Self {
            exact: vec![(0, 0); 1 << EXACT_BITS],
            near: vec![(u32::MAX, 0); 1 << NEAR_BITS],
        }
    }

    fn forget(&mut self) {
        self.exact.fill((0, 0));
        self.near.fill((u32::MAX, 0));
    }

    fn slot(key: u32, bits: u32) -> usize {
        (key.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
    }

    fn exact(&self, key: u32) -> Option<u32> {
        let (old, new) = self.exact[Self::slot(key, EXACT_BITS)];
        (old == key && old != new).then_some(new)
    }

    fn near(&self, key: u32) -> Option<u32> {
        let (place, shift) = self.near[Self::slot(key >> 8, NEAR_BITS)];
        (place == key >> 8 && shift != 0).then(|| key.wrapping_add(shift))
    }

    fn learn(&mut self, key: u32, new: u32) {
        self.exact[Self::slot(key, EXACT_BITS)] = (key, new);
        self.near[Self::slot(key >> 8, NEAR_BITS)] = (key >> 8, new.wrapping_sub(key));
    }
}

/// The model of differences.
struct Differences {
    gaps: Vec<Bit>,
    gaps_low: Vec<Bit>,
    long_gap: Number,
    hits: Vec<Bit>,
    bytes: Vec<Bit>,
    bytes_low: Vec<Bit>,
    absolute: Memory,
    relative: Memory,
    /// The last two gaps, and the class of the last difference.
    last: [u32; 2],
    class: u32,
    delta: u8,
}

/// Gaps below this are one symbol.
const SHORT: u32 = 63;

impl Differences {
    fn new() -> Self {
        Self {
            gaps: vec![Bit::default(); 64 * 64 * 64],
            gaps_low: vec![Bit::default(); 64 * 8],
            long_gap: Number::new(),
            hits: vec![Bit::default(); 8 * 8],
            bytes: vec![Bit::default(); 256 * 256 * 2],
            bytes_low: vec![Bit::default(); 256 * 4],
            absolute: Memory::new(),
            relative: Memory::new(),
            last: [0; 2],
            class: 0,
            delta: 0,
        }
    }

    /// Becomes as [`Self::new`] makes it, in the same memory.
    fn forget(&mut self) {
        let Self {
            gaps,
            gaps_low,
            long_gap,
            hits,
            bytes,
            bytes_low,
            absolute,
            relative,
            last,
            class,
            delta,
        } = self;
        for models in [gaps, gaps_low, hits, bytes, bytes_low] {
            models.fill(Bit::default());
        }
        *long_gap = Number::new();
        absolute.forget();
        relative.forget();
        (*last, *class, *delta) = ([0; 2], 0, 0);
    }

    /// Codes the differences of one copy: `out` holds the copy with its addresses moved and becomes
    /// what it should be. The encoder gives the `target`.
    fn code(
        &mut self,
        coder: &mut impl Coder,
        piece: Piece,
        out: &mut [u8],
        target: Option<&[u8]>,
    ) {
        let len = out.len();
        let mut at = 0;
        // A difference whose four bytes are not complete yet.
        let mut begun: Option<usize> = None;
        // The copy as it was before the differences.
        let mut before = [0_u8; 4];
        loop {
            let left = (len - at) as u32;
            let gap = target.map_or(0, |target| {
                out[at..]
                    .iter()
                    .zip(&target[at..])
                    .take_while(|(a, b)| a == b)
                    .count() as u32
            });
            let gap = self.gap(coder, gap).min(left);
            at += gap as usize;
            if let Some(from) = begun
                && from + 4 <= at.min(len)
            {
                self.learn(piece, from, before, &out[from..from + 4]);
                begun = None;
            }
            if at >= len {
                return;
            }
            if begun.is_none() && at + 4 <= len {
                before.copy_from_slice(&out[at..at + 4]);
                if let Some((class, value)) = self.guess(piece, at, u32::from_le_bytes(before)) {
                    let right =
                        target.is_some_and(|target| target[at..at + 4] == value.to_le_bytes());
                    let context = (class * 8 + self.class) as usize;
                    if coder.bit(&mut self.hits[context], right) {
                        out[at..at + 4].copy_from_slice(&value.to_le_bytes());
                        self.learn(piece, at, before, &value.to_le_bytes());
                        at += 4;
                        self.class = class;
                        continue;
                    }
                }
                begun = Some(at);
                self.class = 0;
            } else if begun.is_none() {
                self.class = 7;
            } else {
                self.class = 5 + u32::from(gap == 0);
            }
            let wanted = target.map_or(0, |target| target[at]);
            out[at] = self.byte(coder, out[at], gap == 0, wanted);
            at += 1;
            if let Some(from) = begun
                && from + 4 <= at
            {
                self.learn(piece, from, before, &out[from..from + 4]);
                begun = None;
            }
        }
    }

    fn guess(&self, piece: Piece, at: usize, value: u32) -> Option<(u32, u32)> {
        let place = (piece.old + at) as u32;
        let moved = (piece.new as u32).wrapping_sub(piece.old as u32);
        let differs = |guess: &u32| *guess as u8 != value as u8;
        let relative = |key: u32| key.wrapping_sub(place);
        let key = value.wrapping_add(place);
        let back = |new: u32| relative(new).wrapping_sub(moved);
        self.absolute
            .exact(value)
            .filter(differs)
            .map(|guess| (1, guess))
            .or_else(|| {
                self.relative
                    .exact(key)
                    .map(back)
                    .filter(differs)
                    .map(|guess| (2, guess))
            })
            .or_else(|| {
                self.absolute
                    .near(value)
                    .filter(differs)
                    .map(|guess| (3, guess))
            })
            .or_else(|| {
                self.relative
                    .near(key)
                    .map(back)
                    .filter(differs)
                    .map(|guess| (4, guess))
            })
    }

    fn learn(&mut self, piece: Piece, at: usize, before: [u8; 4], now: &[u8]) {
        let old = u32::from_le_bytes(before);
        let mut word = [0; 4];
        word.copy_from_slice(now);
        let new = u32::from_le_bytes(word);
        let place = (piece.old + at) as u32;
        let new_place = (piece.new + at) as u32;
        self.absolute.learn(old, new);
        self.relative
            .learn(old.wrapping_add(place), new.wrapping_add(new_place));
    }

    fn gap(&mut self, coder: &mut impl Coder, gap: u32) -> u32 {
        let context = ((self.last[0].min(SHORT) * 64 + self.last[1].min(SHORT)) * 64) as usize;
        let low = (self.class * 64) as usize;
        let symbol = gap.min(SHORT);
        let symbol = coder.tree2::<6>(
            &mut self.gaps[context..][..64],
            &mut self.gaps_low[low..][..64],
            symbol,
        );
        let gap = if symbol == SHORT {
            SHORT.saturating_add(self.long_gap.code(coder, gap.wrapping_sub(SHORT)))
        } else {
            symbol
        };
        self.last = [gap, self.last[0]];
        // Where the next one begins, brought near while the bytes in between are decoded.
        let next = (gap.min(SHORT) * 64 + self.last[1].min(SHORT)) * 64;
        std::hint::black_box(self.gaps[next as usize + 1]);
        gap
    }

    fn byte(&mut self, coder: &mut impl Coder, before: u8, follows: bool, wanted: u8) -> u8 {
        let delta = wanted.wrapping_sub(before);
        let context = (usize::from(self.delta) * 2 + usize::from(follows)) * 256;
        let low = usize::from(follows) * 256;
        self.delta = coder.tree2::<8>(
            &mut self.bytes[context..][..256],
            &mut self.bytes_low[low..][..256],
            u32::from(delta),
        ) as u8;
        before.wrapping_add(self.delta)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        elf::Layout,
        fields::{FORMS, Field, Range},
    };

    fn layout(forms: &[usize], len: usize, bias: i64) -> Layout {
        let step = len / forms.len().max(1);
        let range = |address, offset, bias| Range {
            address,
            len: len as u64,
            offset,
            bias,
        };
        Layout {
            ranges: vec![
                range(0x1000, Some(0), 0x1000 + bias),
                range(0x100_0000, None, bias),
            ],
            fields: forms
                .iter()
                .enumerate()
                .map(|(number, form)| Field {
                    form: FORMS[form % FORMS.len()],
                    start: number * step,
                    len: step,
                })
                .collect(),
        }
    }

    #[test]
    fn addresses_that_moved_with_what_they_point_to_cost_next_to_nothing() {
        // A table of addresses of places behind an insertion.
        let code: Vec<u8> = (0..40_000_u32)
            .flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes())
            .collect();
        let table = |shift: u64| -> Vec<u8> {
            (0..2000_u64)
                .flat_map(|n| (0x1000 + 20_000 + (n * 7919) % 100_000 + shift).to_le_bytes())
                .collect()
        };
        let (mut old, mut new) = (table(0), table(24));
        old.extend(&code);
        new.extend(&code[..1000]);
        new.extend([0x77; 24]);
        new.extend(&code[1000..]);
        let layout = Layout {
            ranges: vec![Range {
                address: 0x1000,
                len: old.len() as u64,
                offset: Some(0),
                bias: 0x1000,
            }],
            fields: vec![Field {
                form: FORMS[1],
                start: 0,
                len: 16_000,
            }],
        };
        let packed = pack(&old, &new, &layout, 0, 0).unwrap();
        let plain = pack(&old, &new, &Layout::default(), 0, 0).unwrap();
        let (mut out, mut tables) = (Vec::new(), Tables::default());
        unpack(&packed, &mut old.clone(), new.len(), &mut out, &mut tables).unwrap();
        assert!(out == new);
        assert!(packed.len() < 150, "{} bytes", packed.len());
        assert!(
            plain.len() > packed.len() * 2,
            "{} bytes without",
            plain.len()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_goes_in_comes_out_and_damage_does_no_harm(
            seed in any::<u32>(),
            forms in prop::collection::vec(0..7_usize, 0..5),
            bias in -0x3000..0x3000_i64,
            edits in prop::collection::vec((any::<usize>(), 0..90_usize, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        ) {
            // Small numbers, calls and branches among noise, so that every form finds something.
            let mut state = seed | 1;
            let old: Vec<u8> = (0..3000)
                .flat_map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    match state >> 30 {
                        0 => [0xe8, (state >> 8) as u8 & 0xf, 0, 0],
                        1 => (0x1000 + (state >> 12 & 0xfff)).to_le_bytes(),
                        2 => (0x9400_0000 | state >> 20 & 0xff).to_le_bytes(),
                        _ => [0; 4],
                    }
                })
                .collect();
            let mut new = old.clone();
            for (at, gone, come) in edits {
                let at = at % (new.len() + 1);
                let to = (at + gone).min(new.len());
                new.splice(at..to, come);
            }
            let layout = layout(&forms, old.len(), bias);
            let mut packed = pack(&old, &new, &layout, 0, 0).unwrap();
            let mut tables = Tables::default();
            // The second time in the same memory.
            for _ in 0..2 {
                let mut out = Vec::new();
                unpack(&packed, &mut old.clone(), new.len(), &mut out, &mut tables).unwrap();
                prop_assert_eq!(&out, &new);
            }
            for (at, value) in damage {
                let len = packed.len();
                packed[at % len] = value;
            }
            let mut out = Vec::new();
            let _right_or_wrong =
                unpack(&packed, &mut old.clone(), new.len(), &mut out, &mut tables);
            prop_assert!(out.len() <= new.len());
        }
    }
}
