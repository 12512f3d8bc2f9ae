//! Makes patches.

use std::io;

use super::{Differences, find};
use crate::{
    elf::Layout,
    fields::{Mover, Piece},
    number,
    range::Encoder,
    text::{self, Kind},
};

/// How often the copies are looked for again with the addresses moved.
const ROUNDS: usize = 2;

/// The patch that makes `new` of `old`, which are the pieces from `old_from` and `new_from` on of
/// the files that `layout` describes.
///
/// # Errors
/// Whatever the packer of the new bytes says; it has no reason to fail.
pub fn pack(
    old: &[u8],
    new: &[u8],
    layout: &Layout,
    old_from: usize,
    new_from: usize,
) -> io::Result<Vec<u8>> {
    let whole = layout.piece(old_from, old.len(), new_from);
    let mut layout = whole.clone();
    let mut pieces = find::copies(old, new);
    worthwhile(&mut layout, &pieces, old, new);
    for _ in 0..ROUNDS {
        // With the addresses moved, more of it is alike: look again.
        let mover = Mover::new(
            layout.ranges.clone(),
            layout.fields.clone(),
            &pieces,
            old.len(),
        );
        let mut moved = old.to_vec();
        mover.run_everywhere(old, &mut moved);
        pieces = find::copies(&moved, new);
        layout = whole.clone();
        worthwhile(&mut layout, &pieces, old, new);
    }
    if pieces.first().is_some_and(|piece| piece.new > 0) {
        // The table has what is new after each copy, so there must be a first one.
        pieces.insert(
            0,
            Piece {
                old: 0,
                new: 0,
                len: 0,
            },
        );
    }

    let mut table = Vec::new();
    number::put(&mut table, pieces.len() as u64);
    let mut news = Vec::new();
    let mut old_at = 0_i64;
    for (at, piece) in pieces.iter().enumerate() {
        let next = pieces.get(at + 1).map_or(new.len(), |next| next.new);
        let between = &new[piece.new + piece.len..next];
        number::put_signed(&mut table, piece.old as i64 - old_at);
        number::put(&mut table, piece.len as u64);
        number::put(&mut table, between.len() as u64);
        news.extend_from_slice(between);
        old_at = (piece.old + piece.len) as i64;
    }
    table.extend(Mover::encode(&layout.ranges, &layout.fields));
    let mover = Mover::new(layout.ranges, layout.fields, &pieces, old.len());

    let mut encoder = Encoder::new();
    let mut model = Differences::new();
    for piece in &pieces {
        let mut copy = old[piece.old..piece.old + piece.len].to_vec();
        mover.run(old, *piece, &mut copy);
        let target = &new[piece.new..piece.new + piece.len];
        model.code(&mut encoder, *piece, &mut copy, Some(target));
    }
    let head = text::pack(&table, &[], Kind::Binary)?;
    let news = text::pack(&news, old, Kind::Binary)?;
    let differences = encoder.finish();
    let mut out = Vec::new();
    number::put(&mut out, table.len() as u64);
    number::put(&mut out, head.len() as u64);
    number::put(&mut out, news.len() as u64);
    out.extend(head);
    out.extend(news);
    out.extend(differences);
    Ok(out)
}

/// Leaves out the fields that do not make the copies more alike.
fn worthwhile(layout: &mut Layout, pieces: &[Piece], old: &[u8], new: &[u8]) {
    let fields = std::mem::take(&mut layout.fields);
    layout.fields = fields
        .into_iter()
        .filter(|field| {
            let mover = Mover::new(layout.ranges.clone(), vec![*field], pieces, old.len());
            let end = field.start + field.len;
            let gain: i64 = pieces
                .iter()
                .filter(|piece| piece.old < end && piece.old + piece.len > field.start)
                .map(|piece| {
                    let mut copy = old[piece.old..piece.old + piece.len].to_vec();
                    let target = &new[piece.new..piece.new + piece.len];
                    let before = unlike(&copy, target);
                    mover.run(old, *piece, &mut copy);
                    before - unlike(&copy, target)
                })
                .sum();
            gain > 8
        })
        .collect();
}

fn unlike(a: &[u8], b: &[u8]) -> i64 {
    a.iter().zip(b).filter(|(a, b)| a != b).count() as i64
}

/// The same patch with its table, its new bytes and its differences changed: for those who try what
/// an unpacker makes of it. Nothing for what is no patch.
#[doc(hidden)]
pub fn for_fuzzing(packed: &[u8], change: &mut dyn FnMut(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut rest = packed;
    let table_len = number::get_up_to(&mut rest, 1 << 20).ok()?;
    let table_packed = number::get_up_to(&mut rest, packed.len()).ok()?;
    let news_packed = number::get_up_to(&mut rest, packed.len()).ok()?;
    let (head, rest) = rest.split_at_checked(table_packed)?;
    let (news, differences) = rest.split_at_checked(news_packed)?;
    let mut table = Vec::new();
    text::unpack(head, &mut table, table_len, Kind::Binary).ok()?;
    change(&mut table);
    let head = text::pack(&table, &[], Kind::Binary).ok()?;
    let (mut news, mut differences) = (news.to_vec(), differences.to_vec());
    change(&mut news);
    change(&mut differences);
    let mut out = Vec::new();
    for len in [table.len(), head.len(), news.len()] {
        number::put(&mut out, len as u64);
    }
    out.extend(head);
    out.extend(news);
    out.extend(differences);
    Some(out)
}
