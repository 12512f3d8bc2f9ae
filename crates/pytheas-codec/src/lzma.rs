//! The LZMA decoder: raw LZMA1, decoded into one buffer that begins with what is known.
//!
//! Format as in the LZMA specification (Igor Pavlov, `lzma-specification.txt`, 2015). Written here
//! because the buffer of known bytes must not be copied on a small device.

use std::hint::select_unpredictable;

use crate::Damaged;

const TOP: u32 = 1 << 24;
const HALF: u16 = 1 << 10;
/// What the chance of a 0 nears when it was one, rounded as the format rounds.
const UP: i32 = 2048 - 31;

/// The bits. Kept in registers: whatever reads them is compiled into [`decode`].
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Input<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut input = Self {
            bytes,
            at: 1,
            range: u32::MAX,
            code: 0,
        };
        for _ in 0..4 {
            input.code = input.code << 8 | input.next();
        }
        input
    }

    #[inline(always)]
    fn next(&mut self) -> u32 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    #[inline(always)]
    fn normalise(&mut self) {
        if self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
    }

    /// A bit that decides what comes next.
    #[inline(always)]
    fn bit(&mut self, chance: &mut u16) -> bool {
        let bound = (self.range >> 11) * u32::from(*chance);
        let bit = if self.code < bound {
            self.range = bound;
            *chance += (2048 - *chance) >> 5;
            false
        } else {
            self.range -= bound;
            self.code -= bound;
            *chance -= *chance >> 5;
            true
        };
        self.normalise();
        bit
    }

    /// A bit of a number with this chance, and the chance afterwards. It cannot be foretold, and
    /// nothing but the number depends on it: both outcomes are computed, which takes less time than
    /// half of the guesses being wrong.
    #[inline(always)]
    fn digit(&mut self, chance: u16) -> (bool, u16) {
        let now = i32::from(chance);
        let bound = (self.range >> 11) * u32::from(chance);
        let bit = self.code >= bound;
        self.range = select_unpredictable(bit, self.range.wrapping_sub(bound), bound);
        self.code = select_unpredictable(bit, self.code.wrapping_sub(bound), self.code);
        let then = (now - ((now - select_unpredictable(bit, 0, UP)) >> 5)) as u16;
        self.normalise();
        (bit, then)
    }

    /// A number, its highest bit first. While a bit is decoded, the chances of both that may follow
    /// are looked up: they are what the next one would wait for.
    #[inline(always)]
    fn tree<const SIZE: usize, const CHANCES: usize>(
        &mut self,
        chances: &mut [u16; CHANCES],
    ) -> usize {
        let mut node = 1_usize;
        let mut chance = chances[1];
        for _ in 1..SIZE.trailing_zeros() {
            let next = node << 1;
            let (if_0, if_1) = (chances[next], chances[next + 1]);
            let (bit, then) = self.digit(chance);
            chances[node] = then;
            chance = select_unpredictable(bit, if_1, if_0);
            node = next | usize::from(bit);
        }
        let (bit, then) = self.digit(chance);
        chances[node] = then;
        (node << 1 | usize::from(bit)) - SIZE
    }

    #[inline(always)]
    fn direct(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            let rest = self.code.wrapping_sub(self.range);
            self.code = select_unpredictable(bit, rest, self.code);
            value = value << 1 | u32::from(bit);
            self.normalise();
        }
        value
    }

    #[inline(always)]
    fn tree_reversed(&mut self, chances: &mut [u16], bits: u32) -> u32 {
        let (mut node, mut value) = (1_usize, 0);
        for at in 0..bits {
            let (bit, then) = self.digit(chances[node]);
            chances[node] = then;
            node = node << 1 | usize::from(bit);
            value |= u32::from(bit) << at;
        }
        value
    }

    /// A literal that follows a copy: it is not the byte `like` that would have gone on with it, but
    /// may begin as that does.
    #[inline(always)]
    fn literal_unlike(&mut self, chances: &mut [u16; 0x300], like: u8) -> u8 {
        let (mut symbol, mut like) = (1_usize, usize::from(like));
        let mut same = 0x100;
        for _ in 0..8 {
            like <<= 1;
            let wanted = like & same;
            let chance = &mut chances[same + wanted + symbol];
            let (bit, then) = self.digit(*chance);
            *chance = then;
            symbol = symbol << 1 | usize::from(bit);
            // As long as they are the same.
            same &= select_unpredictable(bit, wanted, !wanted);
        }
        symbol as u8
    }
}

struct Length {
    choice: [u16; 2],
    low: [[u16; 8]; 16],
    middle: [[u16; 8]; 16],
    high: [u16; 256],
}

impl Length {
    fn new() -> Self {
        Self {
            choice: [HALF; 2],
            low: [[HALF; 8]; 16],
            middle: [[HALF; 8]; 16],
            high: [HALF; 256],
        }
    }

    #[inline(always)]
    fn decode(&mut self, input: &mut Input<'_>, slot: usize) -> usize {
        let (base, rest) = if !input.bit(&mut self.choice[0]) {
            (2, input.tree::<8, 8>(&mut self.low[slot]))
        } else if !input.bit(&mut self.choice[1]) {
            (10, input.tree::<8, 8>(&mut self.middle[slot]))
        } else {
            (18, input.tree::<256, 256>(&mut self.high))
        };
        base + rest
    }
}

/// Where a distance leads.
#[inline(always)]
fn back(len: usize, distance: usize) -> Result<usize, Damaged> {
    len.checked_sub(distance)
        .and_then(|at| at.checked_sub(1))
        .ok_or(Damaged("it looks back beyond its beginning"))
}

/// Copies this short are made as if they were this long, where that does no harm.
const SHORT: usize = 16;

/// Copies `count` bytes from `from` to `at`, which may overlap: then what is copied is copied again.
#[inline(always)]
fn copy(buffer: &mut [u8], from: usize, at: usize, count: usize) {
    let distance = at - from;
    if count <= SHORT && distance >= SHORT && buffer.len() - at >= SHORT {
        buffer.copy_within(from..from + SHORT, at);
    } else if distance >= count {
        buffer.copy_within(from..from + count, at);
    } else {
        for at in at..at + count {
            buffer[at] = buffer[at - distance];
        }
    }
}

/// Appends `len` decoded bytes to `buffer`, whose content is what the packer knew.
///
/// # Errors
/// [`Damaged`] for what looks back too far, ends early or has an end mark.
pub(crate) fn decode(
    packed: &[u8],
    buffer: &mut Vec<u8>,
    len: usize,
    lc: u32,
    pb: u32,
) -> Result<(), Damaged> {
    let known = buffer.len();
    buffer.reserve_exact(len);
    buffer.resize(known + len, 0);
    decode_into(packed, buffer, known, lc, pb)
}

/// Decodes into what comes after the `at` bytes that are known.
fn decode_into(
    packed: &[u8],
    buffer: &mut [u8],
    mut at: usize,
    lc: u32,
    pb: u32,
) -> Result<(), Damaged> {
    let mut input = Input::new(packed);
    let mut literals = vec![[HALF; 0x300]; 1 << lc];
    let (mut is_match, mut is_rep0_long) = ([[HALF; 16]; 12], [[HALF; 16]; 12]);
    let (mut is_rep, mut is_rep0) = ([HALF; 12], [HALF; 12]);
    let (mut is_rep1, mut is_rep2) = ([HALF; 12], [HALF; 12]);
    let mut slots = [[HALF; 64]; 4];
    let mut special = [HALF; 128];
    let mut align = [HALF; 16];
    let (mut length, mut rep_length) = (Length::new(), Length::new());
    let (mut state, mut reps) = (0_usize, [0_usize; 4]);
    while at < buffer.len() {
        if input.at > packed.len() + 5 {
            return Err(Damaged("it ends too early"));
        }
        let position = at & ((1 << pb) - 1);
        if !input.bit(&mut is_match[state][position]) {
            let before = if at == 0 { 0 } else { buffer[at - 1] };
            let chances = &mut literals[usize::from(before) >> (8 - lc)];
            let (byte, next) = match state {
                0..7 => (
                    input.tree::<0x100, 0x300>(chances) as u8,
                    state.saturating_sub(3),
                ),
                _ => {
                    let like = buffer[back(at, reps[0])?];
                    let next = if state < 10 { state - 3 } else { state - 6 };
                    (input.literal_unlike(chances, like), next)
                }
            };
            buffer[at] = byte;
            at += 1;
            state = next;
            continue;
        }
        let count = if input.bit(&mut is_rep[state]) {
            if !input.bit(&mut is_rep0[state]) {
                if !input.bit(&mut is_rep0_long[state][position]) {
                    buffer[at] = buffer[back(at, reps[0])?];
                    at += 1;
                    state = if state < 7 { 9 } else { 11 };
                    continue;
                }
            } else if !input.bit(&mut is_rep1[state]) {
                reps = [reps[1], reps[0], reps[2], reps[3]];
            } else if !input.bit(&mut is_rep2[state]) {
                reps = [reps[2], reps[0], reps[1], reps[3]];
            } else {
                reps = [reps[3], reps[0], reps[1], reps[2]];
            }
            let count = rep_length.decode(&mut input, position);
            state = if state < 7 { 8 } else { 11 };
            count
        } else {
            let count = length.decode(&mut input, position);
            state = if state < 7 { 7 } else { 10 };
            let slot = input.tree::<64, 64>(&mut slots[(count - 2).min(3)]) as u32;
            let distance = if slot < 4 {
                slot as usize
            } else {
                let bits = (slot >> 1) - 1;
                let base = (2 | slot & 1) << bits;
                let rest = if slot < 14 {
                    let from = (base - slot) as usize;
                    input.tree_reversed(&mut special[from..], bits)
                } else {
                    let high = input.direct(bits - 4) << 4;
                    high | input.tree_reversed(&mut align, 4)
                };
                base.wrapping_add(rest) as usize
            };
            reps = [distance, reps[0], reps[1], reps[2]];
            count
        };
        let from = back(at, reps[0])?;
        let count = count.min(buffer.len() - at);
        copy(buffer, from, at, count);
        at += count;
    }
    Ok(())
}
