//! An adaptive binary range coder (as in LZMA: 32-bit range, carry by a cached byte) and models
//! for whole numbers and bytes on top of it.
//!
//! Encoder and decoder share one description of what is coded: [`Coder::bit`] either writes the bit
//! it is given or returns the one it reads. A decoder that runs out of input reads zeros and says
//! so at the end.

use std::hint::select_unpredictable;

const TOP: u32 = 1 << 24;
const BITS: u32 = 15;

/// Chance of a 0, learnt at two speeds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bit {
    fast: u16,
    slow: u16,
}

impl Default for Bit {
    fn default() -> Self {
        Self {
            fast: 1 << (BITS - 1),
            slow: 1 << (BITS - 1),
        }
    }
}

impl Bit {
    #[inline]
    fn chance(self) -> u32 {
        (u32::from(self.fast) + u32::from(self.slow)) >> 1
    }

    #[inline]
    fn learn(&mut self, bit: bool) {
        // Which way it goes cannot be predicted: both are computed.
        let less = (self.fast - (self.fast >> 4), self.slow - (self.slow >> 7));
        let more = (
            self.fast + (((1 << BITS) - self.fast) >> 4),
            self.slow + (((1 << BITS) - self.slow) >> 7),
        );
        self.fast = select_unpredictable(bit, less.0, more.0);
        self.slow = select_unpredictable(bit, less.1, more.1);
    }
}

/// Writes or reads bits.
pub(crate) trait Coder {
    /// Codes one bit; an encoder returns what it was given.
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool;

    /// Codes one bit with the chances of two models, both of which learn.
    fn bit2(&mut self, a: &mut Bit, b: &mut Bit, bit: bool) -> bool;

    /// Codes `value`, a number of `BITS` bits, the highest first, each with the chances of the two
    /// models at its place in the trees `a` and `b`.
    fn tree2<const BITS: u32>(&mut self, a: &mut [Bit], b: &mut [Bit], value: u32) -> u32 {
        let mut node = 1_usize;
        for shift in (0..BITS).rev() {
            let bit = value >> shift & 1 == 1;
            let bit = self.bit2(&mut a[node], &mut b[node], bit);
            node = node << 1 | usize::from(bit);
        }
        node as u32 & ((1 << BITS) - 1)
    }
}

fn split(range: u32, chance: u32) -> u32 {
    (range >> BITS) * chance.clamp(32, (1 << BITS) - 32)
}

/// The encoder.
#[cfg(any(feature = "encode", test))]
pub(crate) struct Encoder {
    low: u64,
    range: u32,
    cache: u8,
    pending: u64,
    out: Vec<u8>,
}

#[cfg(any(feature = "encode", test))]
impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            cache: 0,
            pending: 1,
            out: Vec::new(),
        }
    }

    fn code(&mut self, chance: u32, bit: bool) {
        let bound = split(self.range, chance);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        if self.low < 0xff00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            let mut byte = self.cache;
            for _ in 0..self.pending {
                self.out.push(byte.wrapping_add(carry));
                byte = 0xff;
            }
            self.pending = 0;
            self.cache = (self.low >> 24) as u8;
        }
        self.pending += 1;
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        // The first byte is always 0; zeros at the end are read without being there.
        self.out.remove(0);
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

#[cfg(any(feature = "encode", test))]
impl Coder for Encoder {
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool {
        self.code(model.chance(), bit);
        model.learn(bit);
        bit
    }

    fn bit2(&mut self, a: &mut Bit, b: &mut Bit, bit: bool) -> bool {
        self.code((a.chance() + b.chance()) >> 1, bit);
        a.learn(bit);
        b.learn(bit);
        bit
    }
}

/// The decoder.
pub(crate) struct Decoder<'a> {
    range: u32,
    code: u32,
    input: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self {
            range: u32::MAX,
            code: 0,
            input,
            at: 0,
        };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.next();
        }
        decoder
    }

    #[inline]
    fn next(&mut self) -> u32 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    /// Whether more was read than an encoder leaves out at the end.
    pub(crate) fn ran_out(&self) -> bool {
        self.at > self.input.len() + 8
    }

    #[inline]
    fn decode(&mut self, chance: u32) -> bool {
        let bound = split(self.range, chance);
        let bit = self.code >= bound;
        self.code = select_unpredictable(bit, self.code.wrapping_sub(bound), self.code);
        self.range = select_unpredictable(bit, self.range.wrapping_sub(bound), bound);
        while self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
        bit
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn bit(&mut self, model: &mut Bit, _: bool) -> bool {
        let bit = self.decode(model.chance());
        model.learn(bit);
        bit
    }

    #[inline]
    fn bit2(&mut self, a: &mut Bit, b: &mut Bit, _: bool) -> bool {
        let bit = self.decode((a.chance() + b.chance()) >> 1);
        a.learn(bit);
        b.learn(bit);
        bit
    }

    /// As it is there, but while a bit is decoded the chances of both that may follow are looked up:
    /// they are what the next one would wait for.
    #[inline]
    fn tree2<const BITS: u32>(&mut self, a: &mut [Bit], b: &mut [Bit], _: u32) -> u32 {
        let (a, b) = (&mut a[..1 << BITS], &mut b[..1 << BITS]);
        let mut node = 1_usize;
        let mut chance = (a[1].chance() + b[1].chance()) >> 1;
        for _ in 1..BITS {
            let next = node << 1;
            let if_0 = (a[next].chance() + b[next].chance()) >> 1;
            let if_1 = (a[next + 1].chance() + b[next + 1].chance()) >> 1;
            let bit = self.decode(chance);
            a[node].learn(bit);
            b[node].learn(bit);
            node = next | usize::from(bit);
            chance = select_unpredictable(bit, if_1, if_0);
        }
        let bit = self.decode(chance);
        a[node].learn(bit);
        b[node].learn(bit);
        (node << 1 | usize::from(bit)) as u32 & ((1 << BITS) - 1)
    }
}

/// Whole numbers below 2^32: the number of bits, then the bits, the first three learnt.
#[derive(Clone)]
pub(crate) struct Number {
    size: [Bit; 64],
    bits: Vec<Bit>,
}

impl Number {
    pub(crate) fn new() -> Self {
        Self {
            size: [Bit::default(); 64],
            bits: vec![Bit::default(); 33 * 16],
        }
    }

    pub(crate) fn code(&mut self, coder: &mut impl Coder, value: u32) -> u32 {
        let wanted = u32::BITS - value.leading_zeros();
        let mut node = 1_usize;
        for shift in (0..6).rev() {
            let bit = coder.bit(&mut self.size[node], wanted >> shift & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        let size = (node as u32 & 63).min(32);
        if size < 2 {
            return size;
        }
        let mut result = 1_u32;
        for (done, shift) in (0..size - 1).rev().enumerate() {
            let context = match done {
                0..3 => result as usize & ((1 << done) - 1) | 1 << done,
                _ => 8 + (shift as usize).min(7),
            };
            let model = &mut self.bits[size as usize * 16 + context];
            let bit = coder.bit(model, value >> shift & 1 == 1);
            result = result << 1 | u32::from(bit);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(values in prop::collection::vec(any::<u32>().prop_flat_map(|v| (0..32_u32).prop_map(move |s| v >> s)), 0..300)) {
            let mut encoder = Encoder::new();
            let mut model = Number::new();
            let (mut a, mut b) = (Bit::default(), Bit::default());
            for value in &values {
                model.code(&mut encoder, *value);
                encoder.bit2(&mut a, &mut b, value & 3 == 0);
            }
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            let mut model = Number::new();
            let (mut a, mut b) = (Bit::default(), Bit::default());
            for value in &values {
                prop_assert_eq!(model.code(&mut decoder, 0), *value);
                prop_assert_eq!(decoder.bit2(&mut a, &mut b, false), value & 3 == 0);
            }
            prop_assert!(!decoder.ran_out());
        }
    }
}
