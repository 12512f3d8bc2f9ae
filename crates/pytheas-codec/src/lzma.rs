//! The LZMA decoder: raw LZMA1, decoded into one buffer that begins with what is known.
//!
//! Format as in the LZMA specification (Igor Pavlov, `lzma-specification.txt`, 2015). Written here
//! because the buffer of known bytes must not be copied on a small device.

use crate::Damaged;

const TOP: u32 = 1 << 24;
const HALF: u16 = 1 << 10;

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

    fn direct(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u32::from(bit);
            self.normalise();
        }
        value
    }

    fn tree(&mut self, chances: &mut [u16], bits: u32) -> u32 {
        let mut node = 1_usize;
        for _ in 0..bits {
            let bit = self.bit(&mut chances[node]);
            node = node << 1 | usize::from(bit);
        }
        node as u32 - (1 << bits)
    }

    fn tree_reversed(&mut self, chances: &mut [u16], bits: u32) -> u32 {
        let (mut node, mut value) = (1_usize, 0);
        for at in 0..bits {
            let bit = self.bit(&mut chances[node]);
            node = node << 1 | usize::from(bit);
            value |= u32::from(bit) << at;
        }
        value
    }
}

struct Length {
    choice: [u16; 2],
    low: Vec<u16>,
    middle: Vec<u16>,
    high: Vec<u16>,
}

impl Length {
    fn new() -> Self {
        Self {
            choice: [HALF; 2],
            low: vec![HALF; 16 * 8],
            middle: vec![HALF; 16 * 8],
            high: vec![HALF; 256],
        }
    }

    fn decode(&mut self, input: &mut Input<'_>, slot: usize) -> usize {
        let (base, rest) = if !input.bit(&mut self.choice[0]) {
            (2, input.tree(&mut self.low[slot * 8..][..8], 3))
        } else if !input.bit(&mut self.choice[1]) {
            (10, input.tree(&mut self.middle[slot * 8..][..8], 3))
        } else {
            (18, input.tree(&mut self.high, 8))
        };
        base + rest as usize
    }
}

/// Where a distance leads.
#[inline(always)]
fn back(len: usize, distance: usize) -> Result<usize, Damaged> {
    len.checked_sub(distance)
        .and_then(|at| at.checked_sub(1))
        .ok_or(Damaged("it looks back beyond its beginning"))
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
    let end = known + len;
    buffer.reserve_exact(len);
    let input = &mut Input::new(packed);
    let mut literals = vec![HALF; 0x300 << lc];
    let (mut is_match, mut is_rep0_long) = ([HALF; 12 * 16], [HALF; 12 * 16]);
    let (mut is_rep, mut is_rep0) = ([HALF; 12], [HALF; 12]);
    let (mut is_rep1, mut is_rep2) = ([HALF; 12], [HALF; 12]);
    let mut slots = [HALF; 4 * 64];
    let mut special = [HALF; 128];
    let mut align = [HALF; 16];
    let (mut length, mut rep_length) = (Length::new(), Length::new());
    let (mut state, mut reps) = (0_usize, [0_usize; 4]);
    while buffer.len() < end {
        if input.at > packed.len() + 5 {
            return Err(Damaged("it ends too early"));
        }
        let position = buffer.len() & ((1 << pb) - 1);
        if !input.bit(&mut is_match[state * 16 + position]) {
            let before = buffer.last().copied().unwrap_or(0);
            let chances = &mut literals[0x300 * usize::from(before >> (8 - lc))..][..0x300];
            let mut symbol = 1_usize;
            if state >= 7 {
                let at = back(buffer.len(), reps[0])?;
                let mut like = usize::from(buffer[at]);
                while symbol < 0x100 {
                    like <<= 1;
                    let wanted = like & 0x100;
                    let bit = input.bit(&mut chances[0x100 + wanted + symbol]);
                    symbol = symbol << 1 | usize::from(bit);
                    if (wanted != 0) != bit {
                        break;
                    }
                }
            }
            while symbol < 0x100 {
                let bit = input.bit(&mut chances[symbol]);
                symbol = symbol << 1 | usize::from(bit);
            }
            buffer.push(symbol as u8);
            state = match state {
                0..4 => 0,
                4..10 => state - 3,
                _ => state - 6,
            };
            continue;
        }
        let count = if input.bit(&mut is_rep[state]) {
            if !input.bit(&mut is_rep0[state]) {
                if !input.bit(&mut is_rep0_long[state * 16 + position]) {
                    let at = back(buffer.len(), reps[0])?;
                    buffer.push(buffer[at]);
                    state = if state < 7 { 9 } else { 11 };
                    continue;
                }
            } else {
                let which = if !input.bit(&mut is_rep1[state]) {
                    1
                } else if !input.bit(&mut is_rep2[state]) {
                    2
                } else {
                    3
                };
                reps[..=which].rotate_right(1);
            }
            let count = rep_length.decode(input, position);
            state = if state < 7 { 8 } else { 11 };
            count
        } else {
            reps.rotate_right(1);
            let count = length.decode(input, position);
            state = if state < 7 { 7 } else { 10 };
            let slot = input.tree(&mut slots[(count - 2).min(3) * 64..][..64], 6);
            reps[0] = if slot < 4 {
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
            count
        };
        let from = back(buffer.len(), reps[0])?;
        let count = count.min(end - buffer.len());
        if reps[0] + 1 >= count {
            buffer.extend_from_within(from..from + count);
        } else {
            for at in from..from + count {
                buffer.push(buffer[at]);
            }
        }
    }
    Ok(())
}
