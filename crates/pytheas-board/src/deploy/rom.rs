//! An app as one image in a ROMFS partition, on a board that was not set up for signed images.
//!
//! The board has two places: two partitions, or the halves of one. The image goes to the one that is
//! not running, is read back, and then a line in `/.pytheas-rom` names it; the line is replaced by
//! renaming, so the board starts the old image or the new one. `main.py` (ours) follows the line.
//! Blocks that the place has already, from a deploy that was cut or one before, are not sent again.

use std::fmt::Write;

use pytheas_release::Sha256;

use super::{DeployError, Deployed, Progress, Target, or_full};
use crate::link::{
    Board, Facts, LinkError,
    files::{self, HELPERS},
    frames::{Frames, quote, slim},
};

const ROM: &str = include_str!("rom.py");
/// The board's `main.py`.
pub const STARTER: &str = include_str!("starter.py");
const POINTER: &str = "/.pytheas-rom";

/// One of the two places for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    partition: u32,
    at: u64,
    room: u64,
    /// What is erased at once.
    block: u64,
}

/// What the board starts now.
struct Running {
    partition: u32,
    at: u64,
    size: u64,
    sha256: String,
    entry: String,
}

/// Whether a `main.py` of the user's may be put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainPy {
    /// It stays, and the deploy is refused.
    Keep,
    /// It becomes `main.py.bak`.
    PutAside,
}

/// Brings an image to the board; `entry` is what it starts, `module` or `module:function`.
///
/// # Errors
/// [`DeployError`]; the image that runs is untouched.
pub fn deploy(
    board: &mut Board,
    facts: &Facts,
    image: &[u8],
    entry: Option<&str>,
    main_py: MainPy,
    progress: Progress<'_>,
) -> Result<Deployed, DeployError> {
    let places = places(facts);
    let Some(first) = places.first() else {
        return Err(DeployError::NoRom);
    };
    let size = image.len() as u64;
    let hash = Sha256::of(image).to_string();
    let entry = entry.unwrap_or("-");
    let (running, main, answers) = ask(board, &places, size)?;
    let ours = main
        .as_deref()
        .map(|text| text == Sha256::of(STARTER.as_bytes()).to_string());
    if ours == Some(false) && main_py == MainPy::Keep && !facts.starter {
        return Err(DeployError::MainPy);
    }
    let mut done = Deployed::nothing(Target::Rom);
    let same = running.as_ref().is_some_and(|running| {
        let there = places.iter().position(|place| running.is_at(place));
        let whole = there.is_some_and(|at| answers[at].0 == hash);
        running.sha256 == hash && running.entry == entry && running.size == size && whole
    });
    if same && ours == Some(true) {
        done.unchanged = 1;
        return Ok(done);
    }
    // The place that is not running; the last one first: the firmware itself mounts the first.
    let runs = |place: &Place| running.as_ref().is_some_and(|running| running.is_at(place));
    let free = places.iter().rposition(|place| !runs(place));
    let free = free.ok_or(DeployError::OnePlace)?;
    let place = places.get(free).unwrap_or(first);
    if size > place.room {
        return Err(DeployError::Full {
            place: format!("ROMFS partition {}", place.partition),
            need: size,
            free: place.room,
        });
    }
    let line = format!("{} {} {size} {hash} {entry}\n", place.partition, place.at);
    let blocks = missing(image, place, &answers[free].1);
    let total: u64 = blocks.iter().map(|(_, part)| part.len() as u64).sum();
    send(
        board,
        facts,
        place,
        size,
        &hash,
        &blocks,
        &line,
        &mut |count| progress(count, total),
    )
    .map_err(|error| or_full(error, "`/`", 512, 0))?;
    if ours != Some(true) {
        if ours == Some(false) {
            board.exec("import os\nos.rename('/main.py','/main.py.bak')")?;
            done.remarks
                .push("the board's `/main.py` is now `/main.py.bak`".into());
        }
        files::write(board, facts, "/main.py", STARTER.as_bytes(), &mut |_| {})?;
    }
    (done.written, done.sent_bytes) = (1, total);
    Ok(done)
}

impl Running {
    fn is_at(&self, place: &Place) -> bool {
        (self.partition, self.at) == (place.partition, place.at)
    }
}

/// The two places, or the only one where nothing can be split.
fn places(facts: &Facts) -> Vec<Place> {
    let whole = |rom: &crate::link::facts::RomPartition| Place {
        partition: rom.number,
        at: 0,
        room: rom.size,
        block: rom.block,
    };
    match facts.rom.as_slice() {
        [] => Vec::new(),
        [only] if only.block > 0 => {
            let half = only.size / 2 / only.block * only.block;
            let first = Place {
                room: half,
                ..whole(only)
            };
            vec![first, Place { at: half, ..first }]
        }
        all => all.iter().take(2).map(whole).collect(),
    }
}

/// The hash of an image's length at each place, and short hashes of its parts.
type Answers = Vec<(String, Vec<String>)>;

fn ask(
    board: &mut Board,
    places: &[Place],
    size: u64,
) -> Result<(Option<Running>, Option<String>, Answers), LinkError> {
    let mut program = slim(&format!("{HELPERS}\n{ROM}\n"));
    program.push_str(&format!(
        "try:\n print('p',open({}).read().strip())\nexcept OSError: pass\n\
         try:\n print('m',_ph('/main.py'))\nexcept OSError: pass\n",
        quote(POINTER)
    ));
    for place in places {
        let Place {
            partition,
            at,
            room,
            block,
        } = place;
        let length = size.min(*room);
        let _infallible = writeln!(program, "print('h',_rh({partition},{at},{length}))");
        if *block > 0 {
            let _infallible = writeln!(program, "_rq({partition},{at},{length},{block})");
        }
    }
    let answer = board.exec(&program)?;
    let (mut running, mut main, mut answers) = (None, None, Answers::new());
    for line in String::from_utf8_lossy(&answer).lines() {
        match line.split_once(' ') {
            Some(("p", text)) => {
                let mut words = text.split(' ');
                let mut next = || words.next().unwrap_or_default().to_owned();
                let (partition, at, size) = (next().parse(), next().parse(), next().parse());
                if let (Ok(partition), Ok(at), Ok(size)) = (partition, at, size) {
                    running = Some(Running {
                        partition,
                        at,
                        size,
                        sha256: next(),
                        entry: next(),
                    });
                }
            }
            Some(("m", hash)) => main = Some(hash.to_owned()),
            Some(("h", hash)) => answers.push((hash.to_owned(), Vec::new())),
            Some(("b", hash)) => {
                if let Some((_, parts)) = answers.last_mut() {
                    parts.push(hash.to_owned());
                }
            }
            _ => {}
        }
    }
    if answers.len() != places.len() {
        return Err(board.unexpected(&answer));
    }
    Ok((running, main, answers))
}

/// The blocks of the image that the place does not have, joined where they touch.
fn missing<'a>(image: &'a [u8], place: &Place, there: &[String]) -> Vec<(usize, &'a [u8])> {
    let block = usize::try_from(place.block).unwrap_or(0);
    if block == 0 || image.len() as u64 > place.room {
        return vec![(0, image)];
    }
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (number, part) in image.chunks(block).enumerate() {
        let hash = Sha256::of(part).to_string();
        if there
            .get(number)
            .is_some_and(|there| hash.starts_with(there))
        {
            continue;
        }
        let start = number * block;
        match out.last_mut() {
            Some((_, end)) if *end == start => *end = start + part.len(),
            _ => out.push((start, start + part.len())),
        }
    }
    out.into_iter()
        .map(|(start, end)| (start, &image[start..end]))
        .collect()
}

#[expect(clippy::too_many_arguments, reason = "one stream, told once")]
fn send(
    board: &mut Board,
    facts: &Facts,
    place: &Place,
    size: u64,
    hash: &str,
    blocks: &[(usize, &[u8])],
    line: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LinkError> {
    let Place {
        partition,
        at,
        block,
        ..
    } = place;
    let mut so_far = 0;
    let mut frames = Frames::begin(board, facts, &format!("{HELPERS}\n{ROM}"))?;
    frames.exec(&format!("_ro({partition},{size},{block})"))?;
    for (start, part) in blocks {
        frames.exec(&format!("_rs({},{})", at + *start as u64, part.len()))?;
        frames.data(part, &mut |count| {
            so_far += count as u64;
            progress(so_far);
        })?;
    }
    frames.exec(&format!(
        "_rc({partition},{at},{size},'{hash}',{})",
        quote(line)
    ))?;
    frames.end()
}
