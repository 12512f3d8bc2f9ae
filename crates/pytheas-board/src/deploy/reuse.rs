//! What the board has already is not sent again, wherever in the new content it stands: the board
//! says two hashes of each block of what runs (CRC-32, which can be rolled over the new content at
//! every offset, and the first bytes of SHA-256), and gets a list of what to copy and what comes over
//! the line. Whether the result is right, the SHA-256 of the whole decides, not these hashes.

use std::{collections::HashMap, ops::Range};

use pytheas_release::Sha256;

use crate::link::{LinkError, frames::Frames};

/// The board's side.
pub(super) const REUSE: &str = include_str!("reuse.py");
/// Steps in one program of the list.
const STEPS_AT_ONCE: usize = 48;
/// Characters of a block's two hashes.
const HASHES: usize = 16;

/// The blocks of what the board has.
#[derive(Debug, Default)]
pub(super) struct Has {
    block: usize,
    /// Places of the blocks with this CRC-32, and their other hash.
    by_crc: HashMap<u32, Vec<(usize, u32)>>,
}

/// A part of the new content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// The board has it, from this place on.
    Old { at: usize, len: usize },
    /// It is sent: these bytes of the new content.
    New(Range<usize>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Old { len, .. } => *len,
            Self::New(range) => range.len(),
        }
    }
}

impl Has {
    /// Reads the board's line: the size of a block, of all, and the blocks' hashes. A last, shorter
    /// block is left out.
    pub(super) fn read(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse::<usize>().ok();
        let (block, size) = (number().unwrap_or(0), number().unwrap_or(0));
        let mut by_crc: HashMap<u32, Vec<(usize, u32)>> = HashMap::new();
        let whole = size.checked_div(block).unwrap_or(0);
        let text = words.next().unwrap_or_default().as_bytes();
        for (number, hashes) in text.chunks_exact(HASHES).take(whole).enumerate() {
            let hex = |part: &[u8]| u32::from_str_radix(&String::from_utf8_lossy(part), 16).ok();
            if let (Some(crc), Some(sha)) = (hex(&hashes[..8]), hex(&hashes[8..])) {
                by_crc.entry(crc).or_default().push((number * block, sha));
            }
        }
        Self { block, by_crc }
    }

    /// The new content in pieces, in order.
    fn pieces(&self, new: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (block, mut fresh, mut at) = (self.block, 0, 0);
        if self.by_crc.is_empty() || block == 0 || new.len() < block {
            return vec![Piece::New(0..new.len())];
        }
        let roll = Rolling::of(block);
        let mut crc = roll.start(&new[..block]);
        loop {
            let found = self.by_crc.get(&crc).and_then(|places| {
                let sha = short(&new[at..at + block]);
                // The block after the one before, if there is a choice: one piece instead of two.
                let next = match pieces.last() {
                    Some(Piece::Old { at: start, len }) if fresh == at => start + len,
                    _ => usize::MAX,
                };
                let mut same = places.iter().filter(|(_, other)| *other == sha);
                let first = same.clone().next();
                same.find(|(place, _)| *place == next).or(first)
            });
            if let Some((place, _)) = found {
                if fresh < at {
                    pieces.push(Piece::New(fresh..at));
                }
                match pieces.last_mut() {
                    Some(Piece::Old { at, len }) if *at + *len == *place => *len += block,
                    _ => pieces.push(Piece::Old {
                        at: *place,
                        len: block,
                    }),
                }
                at += block;
                fresh = at;
                if at + block > new.len() {
                    break;
                }
                crc = roll.start(&new[at..at + block]);
                continue;
            }
            if at + block >= new.len() {
                break;
            }
            crc = roll.on(crc, new[at], new[at + block]);
            at += 1;
        }
        if fresh < new.len() {
            pieces.push(Piece::New(fresh..new.len()));
        }
        pieces
    }
}

fn short(block: &[u8]) -> u32 {
    let hash = Sha256::of(block);
    hash.as_bytes()[..4]
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// What the board does, step by step, and the bytes that come over the line for it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Where the old content begins, for the board.
    from: u64,
    steps: Vec<(u8, u64, u64)>,
    /// The bytes, in the order in which they are needed.
    pub(super) sent: Vec<u8>,
    /// Whether something is copied.
    pub(super) copies: bool,
}

impl Plan {
    /// An empty one; the old content begins at `from`.
    pub(super) fn new(from: u64) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    /// Goes to a place, as the owner's `_ks` understands `kind` (2 or more).
    pub(super) fn go(&mut self, kind: u8, at: u64, len: u64) {
        self.steps.push((kind, at, len));
    }

    /// Fills these parts of the new content, each announced by `before`.
    pub(super) fn fill(
        &mut self,
        new: &[u8],
        has: &Has,
        parts: &[Range<usize>],
        mut before: impl FnMut(&mut Self, &Range<usize>),
    ) {
        let pieces = has.pieces(new);
        for part in parts {
            before(self, part);
            let mut start = 0;
            for piece in &pieces {
                let end = start + piece.len();
                let (from, to) = (start.max(part.start), end.min(part.end));
                if from < to {
                    match piece {
                        Piece::Old { at, .. } => {
                            let place = self.from + (at + from - start) as u64;
                            self.steps.push((1, place, (to - from) as u64));
                            self.copies = true;
                        }
                        Piece::New(_) => {
                            self.steps.push((0, 0, (to - from) as u64));
                            self.sent.extend(&new[from..to]);
                        }
                    }
                }
                start = end;
            }
        }
    }

    /// Sends all of it; the board must have begun with `_kb()`, and `_pw` be `_kd`.
    pub(super) fn send(
        &self,
        frames: &mut Frames<'_>,
        sent: &mut dyn FnMut(usize),
    ) -> Result<(), LinkError> {
        let mut rest = &self.sent[..];
        let mut steps = self.steps.iter().peekable();
        while steps.peek().is_some() {
            let mut program = "_kg((".to_owned();
            let (mut count, mut comes) = (0, 0);
            while let Some((kind, at, len)) = steps.peek() {
                let step = format!("({kind},{at},{len}),");
                let full = count == STEPS_AT_ONCE
                    || count > 0 && program.len() + step.len() + "))".len() > frames.room();
                if full {
                    break;
                }
                program.push_str(&step);
                if *kind == 0 {
                    comes += usize::try_from(*len).unwrap_or(0);
                }
                count += 1;
                steps.next();
            }
            frames.exec(&(program + "))"))?;
            let (now, later) = rest.split_at(comes.min(rest.len()));
            frames.data(now, sent)?;
            rest = later;
        }
        Ok(())
    }
}

/// CRC-32 (of gzip) of a window that moves by one byte.
struct Rolling {
    table: [u32; 256],
    /// What a byte still weighs when it leaves the window.
    leaving: [u32; 256],
    /// The CRC of a window of zeros: what start and end of the CRC add to it.
    zeros: u32,
}

impl Rolling {
    fn of(window: usize) -> Self {
        let mut table = [0; 256];
        for (byte, entry) in (0_u32..).zip(&mut table) {
            *entry = (0..8).fold(byte, |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            });
        }
        let zero = |crc: u32, _| table[(crc & 0xff) as usize] ^ (crc >> 8);
        let mut leaving = [0; 256];
        for (byte, entry) in leaving.iter_mut().enumerate() {
            *entry = table[byte];
        }
        // Linear: the weight of a byte is that of its bits.
        let bits: [u32; 8] = std::array::from_fn(|bit| (0..window).fold(table[1 << bit], zero));
        for (byte, entry) in leaving.iter_mut().enumerate() {
            *entry = (0..8).fold(0, |sum, bit| sum ^ (bits[bit] * ((byte as u32 >> bit) & 1)));
        }
        let zeros = (0..window).fold(u32::MAX, zero) ^ u32::MAX;
        Self {
            table,
            leaving,
            zeros,
        }
    }

    fn start(&self, window: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            self.table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
        };
        window.iter().fold(u32::MAX, step) ^ u32::MAX
    }

    fn on(&self, crc: u32, out: u8, next: u8) -> u32 {
        let raw = crc ^ self.zeros;
        let raw = self.table[((raw ^ u32::from(next)) & 0xff) as usize] ^ (raw >> 8);
        raw ^ self.leaving[usize::from(out)] ^ self.zeros
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(old: &[u8], block: usize) -> Has {
        let roll = Rolling::of(block);
        let start = format!("{block} {} ", old.len());
        let line = old.chunks(block).fold(start, |line, part| {
            line + &format!("{:08x}{:08x}", roll.start(part), short(part))
        });
        Has::read(&line)
    }

    fn rebuilt(old: &[u8], new: &[u8], has: &Has) -> (Vec<u8>, usize) {
        let (mut out, mut sent) = (Vec::new(), 0);
        for piece in has.pieces(new) {
            match piece {
                Piece::Old { at, len } => out.extend(&old[at..at + len]),
                Piece::New(range) => {
                    sent += range.len();
                    out.extend(&new[range]);
                }
            }
        }
        (out, sent)
    }

    fn noise(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn the_crc_is_that_of_gzip() {
        assert_eq!(Rolling::of(9).start(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn an_insertion_costs_the_block_around_it() {
        let old = noise(20_000, 1);
        let mut new = old.clone();
        new.splice(7_001..7_001, *b"inserted");
        new.drain(15_000..15_100);
        let (out, sent) = rebuilt(&old, &new, &has(&old, 256));
        assert_eq!(out, new);
        assert!(sent < 4 * 256, "{sent}");
    }

    #[test]
    fn parts_are_filled_in_the_order_asked_for() {
        let old = noise(4096, 2);
        let new = [&old[1024..], b"end"].concat();
        let mut plan = Plan::default();
        plan.fill(
            &new,
            &has(&old, 256),
            &[512..1000, 3000..3075, 0..512],
            |plan, part| {
                plan.go(2, part.start as u64, 0);
            },
        );
        assert_eq!(
            plan.steps,
            [
                (2, 512, 0),
                (1, 1536, 488),
                (2, 3000, 0),
                (1, 4024, 72),
                (0, 0, 3),
                (2, 0, 0),
                (1, 1024, 512),
            ]
        );
        assert_eq!(plan.sent, b"end");
    }

    proptest! {
        #[test]
        fn whatever_the_board_has_the_content_is_right(
            parts in prop::collection::vec((0_usize..3, 1_usize..700, 0_u8..4), 0..12),
            block in prop_oneof![Just(16_usize), Just(256)],
            cut in 0_usize..3000,
        ) {
            let old = noise(3000, 3);
            let mut new = Vec::new();
            for (kind, len, seed) in parts {
                match kind {
                    0 => new.extend(&old[cut..old.len().min(cut + len)]),
                    1 => new.extend(noise(len, seed.into())),
                    _ => new.extend(vec![seed; len]),
                }
            }
            let (out, _) = rebuilt(&old, &new, &has(&old, block));
            prop_assert_eq!(out, new);
        }

        #[test]
        fn a_rolled_crc_is_that_of_the_window(
            bytes in prop::collection::vec(any::<u8>(), 8..200),
        ) {
            let roll = Rolling::of(7);
            let mut crc = roll.start(&bytes[..7]);
            for at in 0..bytes.len() - 7 {
                crc = roll.on(crc, bytes[at], bytes[at + 7]);
                prop_assert_eq!(crc, roll.start(&bytes[at + 1..at + 8]));
            }
        }
    }
}
