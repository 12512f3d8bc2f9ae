//! A Zstandard decoder (RFC 8878) for whole frames into one buffer: what the one-file launcher
//! needs and no more. No dictionaries, no allocation, no unsafe code; damaged input is an error.
//!
//! `crates/pytheas-build` compiles this file, too, to test it against the reference encoder.

/// The frame is no Zstandard frame, damaged, or of a kind that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

type Result<T> = core::result::Result<T, Damaged>;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BLOCK_MAX: usize = 128 << 10;

/// One cell of an FSE decoding table (RFC 8878, 4.1).
#[derive(Clone, Copy)]
struct Cell {
    symbol: u8,
    bits: u8,
    base: u16,
}

/// An FSE decoding table with room for accuracy logs up to 9.
struct Fse {
    cells: [Cell; 512],
    log: u32,
    is_set: bool,
}

impl Fse {
    const EMPTY: Self = Self {
        cells: [Cell {
            symbol: 0,
            bits: 0,
            base: 0,
        }; 512],
        log: 0,
        is_set: false,
    };

    /// A table that always gives `symbol`.
    fn set_single(&mut self, symbol: u8) {
        self.cells[0] = Cell {
            symbol,
            bits: 0,
            base: 0,
        };
        self.log = 0;
        self.is_set = true;
    }

    /// RFC 8878, 4.1.1: from normalised counts to cells.
    fn set(&mut self, counts: &[i16], log: u32) -> Result<()> {
        let size = 1_usize << log;
        if size > self.cells.len() || counts.len() > 256 {
            return Err(Damaged);
        }
        let mut next = [0_u16; 256];
        let mut high = size;
        for (symbol, count) in counts.iter().enumerate() {
            if *count == -1 {
                high = high.checked_sub(1).ok_or(Damaged)?;
                self.cells[high].symbol = symbol as u8;
                next[symbol] = 1;
            } else {
                next[symbol] = *count as u16;
            }
        }
        let (step, mask) = ((size >> 1) + (size >> 3) + 3, size - 1);
        let mut at = 0;
        for (symbol, count) in counts.iter().enumerate() {
            for _ in 0..(*count).max(0) {
                self.cells[at].symbol = symbol as u8;
                loop {
                    at = (at + step) & mask;
                    if at < high {
                        break;
                    }
                    if high == 0 {
                        return Err(Damaged);
                    }
                }
            }
        }
        if at != 0 {
            return Err(Damaged);
        }
        for cell in &mut self.cells[..size] {
            let state = u32::from(next[usize::from(cell.symbol)]);
            next[usize::from(cell.symbol)] += 1;
            if state == 0 {
                return Err(Damaged);
            }
            let bits = log.checked_sub(31 - state.leading_zeros()).ok_or(Damaged)?;
            cell.bits = bits as u8;
            cell.base = ((state << bits) as usize)
                .checked_sub(size)
                .ok_or(Damaged)? as u16;
        }
        self.log = log;
        self.is_set = true;
        Ok(())
    }

    /// Reads a table's description (RFC 8878, 4.1.1); gives its length in bytes.
    fn read(&mut self, bytes: &[u8], max_log: u32, max_symbol: usize) -> Result<usize> {
        let mut at = 0; // in bits
        let peek = |at: usize, count: u32| -> u32 {
            let word = load(bytes, at >> 3);
            (word >> (at & 7)) as u32 & ((1 << count) - 1)
        };
        let log = peek(at, 4) + 5;
        at += 4;
        if log > max_log {
            return Err(Damaged);
        }
        let mut counts = [0_i16; 256];
        let mut symbol = 0;
        let mut remaining = (1_i32 << log) + 1;
        let mut threshold = 1_i32 << log;
        let mut width = log + 1;
        while remaining > 1 {
            if symbol > max_symbol {
                return Err(Damaged);
            }
            let max = 2 * threshold - 1 - remaining;
            let low = peek(at, width - 1) as i32;
            let value = if low < max {
                at += width as usize - 1;
                low
            } else {
                let value = peek(at, width) as i32;
                at += width as usize;
                if value >= threshold {
                    value - max
                } else {
                    value
                }
            };
            let count = value - 1;
            remaining -= count.abs();
            if remaining < 1 {
                return Err(Damaged);
            }
            counts[symbol] = count as i16;
            symbol += 1;
            if count == 0 {
                loop {
                    let zeros = peek(at, 2) as usize;
                    at += 2;
                    symbol += zeros;
                    if zeros < 3 {
                        break;
                    }
                    if symbol > max_symbol {
                        return Err(Damaged);
                    }
                }
            }
            while remaining < threshold {
                width -= 1;
                threshold >>= 1;
            }
        }
        let len = at.div_ceil(8);
        if len > bytes.len() || symbol > max_symbol + 1 {
            return Err(Damaged);
        }
        self.set(&counts[..symbol], log)?;
        Ok(len)
    }
}

/// Up to eight bytes from `at`, little endian; what lies behind the end is zero.
#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    if let Some(word) = bytes.get(at..at + 8).and_then(|word| word.try_into().ok()) {
        return u64::from_le_bytes(word);
    }
    let mut word = 0;
    for (index, byte) in bytes.get(at..).unwrap_or(&[]).iter().enumerate() {
        word |= u64::from(*byte) << (8 * index);
    }
    word
}

/// Bits read from the end of a stream to its start (RFC 8878, 4.1 and 4.2.2).
struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that are left; negative when more were read than there are.
    left: isize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let last = *bytes.last().ok_or(Damaged)?;
        if last == 0 {
            return Err(Damaged);
        }
        let padding = last.leading_zeros() as isize + 1;
        Ok(Self {
            bytes,
            left: bytes.len() as isize * 8 - padding,
        })
    }

    /// The next `count` bits (at most 32), zeros behind the end.
    #[inline]
    fn peek(&self, count: u32) -> u32 {
        let start = self.left - count as isize;
        let mask = (1_u64 << count) - 1;
        if start >= 0 {
            return ((load(self.bytes, start as usize >> 3) >> (start & 7)) & mask) as u32;
        }
        if self.left <= 0 {
            return 0;
        }
        let there = load(self.bytes, 0) & ((1_u64 << self.left) - 1);
        ((there << -start) & mask) as u32
    }

    #[inline]
    fn read(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.left -= count as isize;
        value
    }
}

/// A Huffman decoding table (RFC 8878, 4.2): symbol and number of bits for each code.
struct Huffman {
    cells: [(u8, u8); 2048],
    log: u32,
}

impl Huffman {
    /// Reads a tree's description; gives its length in bytes.
    fn read(&mut self, bytes: &[u8], fse: &mut Fse) -> Result<usize> {
        let header = usize::from(*bytes.first().ok_or(Damaged)?);
        let mut weights = [0_u8; 256];
        let (count, len);
        if header >= 128 {
            count = header - 127;
            len = 1 + count.div_ceil(2);
            let packed = bytes.get(1..len).ok_or(Damaged)?;
            for index in 0..count {
                let byte = packed[index / 2];
                weights[index] = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
            }
        } else {
            len = 1 + header;
            let packed = bytes.get(1..len).ok_or(Damaged)?;
            let table = fse.read(packed, 6, 255)?;
            count = decode_weights(&packed[table..], fse, &mut weights)?;
        }
        self.set(&mut weights, count)?;
        Ok(len)
    }

    /// RFC 8878, 4.2.1: the last weight completes the sum to a power of two.
    fn set(&mut self, weights: &mut [u8; 256], count: usize) -> Result<()> {
        if count > 255 {
            return Err(Damaged);
        }
        let mut sum = 0_u32;
        for weight in &weights[..count] {
            if *weight > 11 {
                return Err(Damaged);
            }
            sum += (1 << *weight) >> 1;
        }
        if sum == 0 {
            return Err(Damaged);
        }
        let log = 32 - sum.leading_zeros();
        let left = (1 << log) - sum;
        if log > 11 || !left.is_power_of_two() {
            return Err(Damaged);
        }
        weights[count] = left.trailing_zeros() as u8 + 1;
        let mut at = 0;
        for weight in 1..=log as u8 {
            for (symbol, own) in weights[..=count].iter().enumerate() {
                if *own == weight {
                    let width = 1 << (weight - 1);
                    let cells = self.cells.get_mut(at..at + width).ok_or(Damaged)?;
                    cells.fill((symbol as u8, log as u8 + 1 - weight));
                    at += width;
                }
            }
        }
        if at != 1 << log {
            return Err(Damaged);
        }
        self.log = log;
        Ok(())
    }

    /// One stream of literals into `out`.
    fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<()> {
        let mut bits = Bits::new(stream)?;
        for byte in out {
            let (symbol, width) = self.cells[bits.peek(self.log) as usize & 2047];
            bits.left -= isize::from(width);
            *byte = symbol;
        }
        if bits.left == 0 { Ok(()) } else { Err(Damaged) }
    }
}

/// RFC 8878, 4.2.1.2: weights by two states that take turns.
fn decode_weights(stream: &[u8], fse: &Fse, weights: &mut [u8; 256]) -> Result<usize> {
    let mut bits = Bits::new(stream)?;
    let mut states = [bits.read(fse.log) as usize, bits.read(fse.log) as usize];
    let mut count = 0;
    let mut turn = 0;
    loop {
        let cell = fse.cells[states[turn] & 511];
        *weights.get_mut(count).ok_or(Damaged)? = cell.symbol;
        count += 1;
        states[turn] = usize::from(cell.base) + bits.read(u32::from(cell.bits)) as usize;
        turn = 1 - turn;
        if bits.left < 0 {
            *weights.get_mut(count).ok_or(Damaged)? = fse.cells[states[turn] & 511].symbol;
            return Ok(count + 1);
        }
    }
}

const LITERAL_COUNTS: [i16; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const MATCH_COUNTS: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const OFFSET_COUNTS: [i16; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];
/// Base and extra bits of the literal length codes from 16 on.
const LITERAL_CODES: [(u32, u32); 20] = [
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];
/// Base and extra bits of the match length codes from 32 on.
const MATCH_CODES: [(u32, u32); 21] = [
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];

/// What is kept between the blocks of a frame. Large: make one and use it for all frames.
pub struct Decoder {
    huffman: Huffman,
    literal_lengths: Fse,
    match_lengths: Fse,
    offsets: Fse,
    weights: Fse,
    literals: [u8; BLOCK_MAX],
    recent: [usize; 3],
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub const fn new() -> Self {
        Self {
            huffman: Huffman {
                cells: [(0, 0); 2048],
                log: 0,
            },
            literal_lengths: Fse::EMPTY,
            match_lengths: Fse::EMPTY,
            offsets: Fse::EMPTY,
            weights: Fse::EMPTY,
            literals: [0; BLOCK_MAX],
            recent: [1, 4, 8],
        }
    }

    /// Decodes the one frame `frame`, which gives exactly `out`; checks its checksum if it has one.
    ///
    /// # Errors
    /// [`Damaged`]; `out` then holds anything.
    pub fn decode(&mut self, frame: &[u8], out: &mut [u8]) -> Result<()> {
        if frame.get(..4) != Some(&MAGIC) {
            return Err(Damaged);
        }
        let descriptor = *frame.get(4).ok_or(Damaged)?;
        let is_single = descriptor & 0x20 != 0;
        let has_checksum = descriptor & 4 != 0;
        if descriptor & 3 != 0 {
            return Err(Damaged); // dictionaries are not supported
        }
        let size_len = match descriptor >> 6 {
            0 => usize::from(is_single),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let mut at = 5 + usize::from(!is_single) + size_len;
        self.huffman.log = 0;
        self.literal_lengths.is_set = false;
        self.match_lengths.is_set = false;
        self.offsets.is_set = false;
        self.recent = [1, 4, 8];
        let mut written = 0;
        loop {
            let header = frame.get(at..at + 3).ok_or(Damaged)?;
            let header = load(header, 0) as usize;
            at += 3;
            let size = header >> 3;
            match (header >> 1) & 3 {
                0 => {
                    let from = frame.get(at..at + size).ok_or(Damaged)?;
                    let to = out.get_mut(written..written + size).ok_or(Damaged)?;
                    to.copy_from_slice(from);
                    written += size;
                    at += size;
                }
                1 => {
                    let byte = *frame.get(at).ok_or(Damaged)?;
                    let to = out.get_mut(written..written + size).ok_or(Damaged)?;
                    to.fill(byte);
                    written += size;
                    at += 1;
                }
                2 => {
                    let block = frame.get(at..at + size).ok_or(Damaged)?;
                    written = self.block(block, out, written)?;
                    at += size;
                }
                _ => return Err(Damaged),
            }
            if header & 1 == 1 {
                break;
            }
        }
        if written != out.len() {
            return Err(Damaged);
        }
        let checksum = if has_checksum { 4 } else { 0 };
        let rest = frame.get(at..).ok_or(Damaged)?;
        if rest.len() != checksum || (has_checksum && load(rest, 0) as u32 != xxh64(out) as u32) {
            return Err(Damaged);
        }
        Ok(())
    }

    /// A compressed block (RFC 8878, 3.1.1.3); gives how much of `out` is written then.
    fn block(&mut self, block: &[u8], out: &mut [u8], written: usize) -> Result<usize> {
        let (literals, used) = self.read_literals(block)?;
        let (mut at, mut to) = (0, written);
        let rest = &block[used..];
        let (sequences, header) = match (rest.first(), rest.get(1), rest.get(2)) {
            (Some(0), ..) => (0, 1),
            (Some(a @ 1..=127), ..) => (usize::from(*a), 1),
            (Some(a @ 128..=254), Some(b), _) => {
                ((usize::from(*a) - 128) << 8 | usize::from(*b), 2)
            }
            (Some(255), Some(b), Some(c)) => (usize::from(*b) + (usize::from(*c) << 8) + 0x7f00, 3),
            _ => return Err(Damaged),
        };
        let rest = &rest[header..];
        if sequences > 0 {
            let modes = *rest.first().ok_or(Damaged)?;
            let mut rest = &rest[1..];
            for (table, mode, counts, log, max_log) in [
                (
                    &mut self.literal_lengths,
                    modes >> 6,
                    &LITERAL_COUNTS[..],
                    6,
                    9,
                ),
                (
                    &mut self.offsets,
                    (modes >> 4) & 3,
                    &OFFSET_COUNTS[..],
                    5,
                    8,
                ),
                (
                    &mut self.match_lengths,
                    (modes >> 2) & 3,
                    &MATCH_COUNTS[..],
                    6,
                    9,
                ),
            ] {
                let max_symbol = if max_log == 8 { 31 } else { counts.len() - 1 };
                match mode {
                    0 => table.set(counts, log)?,
                    1 => {
                        let symbol = *rest.first().ok_or(Damaged)?;
                        if usize::from(symbol) > max_symbol {
                            return Err(Damaged);
                        }
                        table.set_single(symbol);
                        rest = &rest[1..];
                    }
                    2 => rest = &rest[table.read(rest, max_log, max_symbol)?..],
                    _ if table.is_set => {}
                    _ => return Err(Damaged),
                }
            }
            let mut bits = Bits::new(rest)?;
            let mut literal_state = bits.read(self.literal_lengths.log) as usize;
            let mut offset_state = bits.read(self.offsets.log) as usize;
            let mut match_state = bits.read(self.match_lengths.log) as usize;
            for number in 0..sequences {
                let literal_cell = self.literal_lengths.cells[literal_state & 511];
                let offset_cell = self.offsets.cells[offset_state & 511];
                let match_cell = self.match_lengths.cells[match_state & 511];
                let offset_bits = u32::from(offset_cell.symbol);
                let value = (1_usize << offset_bits) + bits.read(offset_bits) as usize;
                let length = match match_cell.symbol {
                    code @ 0..=31 => usize::from(code) + 3,
                    code => {
                        let (base, extra) = MATCH_CODES[usize::from(code - 32).min(20)];
                        (base + bits.read(extra)) as usize
                    }
                };
                let plain = match literal_cell.symbol {
                    code @ 0..=15 => usize::from(code),
                    code => {
                        let (base, extra) = LITERAL_CODES[usize::from(code - 16).min(19)];
                        (base + bits.read(extra)) as usize
                    }
                };
                if number + 1 < sequences {
                    let next = |cell: Cell, bits: &mut Bits<'_>| {
                        usize::from(cell.base) + bits.read(u32::from(cell.bits)) as usize
                    };
                    literal_state = next(literal_cell, &mut bits);
                    match_state = next(match_cell, &mut bits);
                    offset_state = next(offset_cell, &mut bits);
                }
                let offset = self.offset(value, plain == 0)?;
                let from = self
                    .literals
                    .get(at..at + plain)
                    .filter(|_| at + plain <= literals);
                let target = out.get_mut(to..to + plain).ok_or(Damaged)?;
                target.copy_from_slice(from.ok_or(Damaged)?);
                at += plain;
                to += plain;
                copy_match(out, to, offset, length)?;
                to += length;
            }
            if bits.left != 0 {
                return Err(Damaged);
            }
        }
        let from = &self.literals[at..literals];
        let target = out.get_mut(to..to + from.len()).ok_or(Damaged)?;
        target.copy_from_slice(from);
        Ok(to + from.len())
    }

    /// RFC 8878, 3.1.1.5: an offset, or one of the three last.
    fn offset(&mut self, value: usize, no_literals: bool) -> Result<usize> {
        let [a, b, c] = self.recent;
        let (offset, recent) = match (value, no_literals) {
            (1, false) => (a, [a, b, c]),
            (2, false) | (1, true) => (b, [b, a, c]),
            (3, false) | (2, true) => (c, [c, a, b]),
            (3, true) => (a.wrapping_sub(1), [a.wrapping_sub(1), a, b]),
            _ => (value - 3, [value - 3, a, b]),
        };
        if offset == 0 {
            return Err(Damaged);
        }
        self.recent = recent;
        Ok(offset)
    }

    /// The literals section (RFC 8878, 3.1.1.3.1); gives their number and the section's length.
    fn read_literals(&mut self, block: &[u8]) -> Result<(usize, usize)> {
        let header = load(block, 0) as usize;
        let kind = header & 3;
        let format = (header >> 2) & 3;
        if kind < 2 {
            let (size, len) = match format {
                0 | 2 => ((header & 0xff) >> 3, 1),
                1 => ((header & 0xffff) >> 4, 2),
                _ => ((header & 0xff_ffff) >> 4, 3),
            };
            let to = self.literals.get_mut(..size).ok_or(Damaged)?;
            if kind == 0 {
                to.copy_from_slice(block.get(len..len + size).ok_or(Damaged)?);
                return Ok((size, len + size));
            }
            to.fill(*block.get(len).ok_or(Damaged)?);
            return Ok((size, len + 1));
        }
        let header = load(block, 0);
        let (bits, len) = match format {
            0 | 1 => (10, 3),
            2 => (14, 4),
            _ => (18, 5),
        };
        let mask = (1_u64 << bits) - 1;
        let size = ((header >> 4) & mask) as usize;
        let packed = ((header >> (4 + bits)) & mask) as usize;
        let mut streams = block.get(len..len + packed).ok_or(Damaged)?;
        if kind == 2 {
            let tree = self.huffman.read(streams, &mut self.weights)?;
            streams = &streams[tree..];
        } else if self.huffman.log == 0 {
            return Err(Damaged);
        }
        let out = self.literals.get_mut(..size).ok_or(Damaged)?;
        if format == 0 {
            self.huffman.decode(streams, out)?;
            return Ok((size, len + packed));
        }
        // Three of 16 bits: more than a `usize` of 32-bit CPUs.
        let jumps = load(streams.get(..6).ok_or(Damaged)?, 0);
        let part = size.div_ceil(4);
        let (mut from, mut to) = (6, 0);
        for number in 0..4 {
            let (end, until) = if number == 3 {
                (streams.len(), size)
            } else {
                let jump = (jumps >> (16 * number)) & 0xffff;
                (from + jump as usize, to + part)
            };
            let stream = streams.get(from..end).ok_or(Damaged)?;
            self.huffman
                .decode(stream, out.get_mut(to..until).ok_or(Damaged)?)?;
            (from, to) = (end, until);
        }
        Ok((size, len + packed))
    }
}

/// Repeats `length` bytes from `offset` before `at`; they may overlap.
#[inline]
fn copy_match(out: &mut [u8], at: usize, offset: usize, length: usize) -> Result<()> {
    let from = at.checked_sub(offset).ok_or(Damaged)?;
    let window = out.get_mut(from..at + length).ok_or(Damaged)?;
    if offset >= length {
        let (source, target) = window.split_at_mut(offset);
        target.copy_from_slice(&source[..length]);
    } else {
        for index in 0..length {
            window[offset + index] = window[index];
        }
    }
    Ok(())
}

/// XXH64 with seed 0 (RFC 8878 takes its lower half as the content checksum).
pub fn xxh64(bytes: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9e37_79b1_85eb_ca87,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
    ];
    let round = |sum: u64, word: u64| {
        sum.wrapping_add(word.wrapping_mul(P[1]))
            .rotate_left(31)
            .wrapping_mul(P[0])
    };
    let stripes = bytes.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut sum = if bytes.len() < 32 {
        P[4]
    } else {
        let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, 0_u64.wrapping_sub(P[0])];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, load(word, 0));
            }
        }
        let turned = [1, 7, 12, 18];
        let mut sum = 0_u64;
        for (lane, turn) in lanes.iter().zip(turned) {
            sum = sum.wrapping_add(lane.rotate_left(turn));
        }
        for lane in lanes {
            sum = (sum ^ round(0, lane)).wrapping_mul(P[0]).wrapping_add(P[3]);
        }
        sum
    };
    sum = sum.wrapping_add(bytes.len() as u64);
    while rest.len() >= 8 {
        sum ^= round(0, load(&rest[..8], 0));
        sum = sum.rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        sum ^= load(&rest[..4], 0).wrapping_mul(P[0]);
        sum = sum.rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        rest = &rest[4..];
    }
    for byte in rest {
        sum ^= u64::from(*byte).wrapping_mul(P[4]);
        sum = sum.rotate_left(11).wrapping_mul(P[0]);
    }
    sum = (sum ^ (sum >> 33)).wrapping_mul(P[1]);
    sum = (sum ^ (sum >> 29)).wrapping_mul(P[2]);
    sum ^ (sum >> 32)
}
