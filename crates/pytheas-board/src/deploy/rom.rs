//! An app as one image in a ROMFS partition, on a board that was not set up for signed images.
//!
//! The board has two places: two partitions, or the halves of one. The image goes to the one that is
//! not running, is read back, and then a line in `/.pytheas-rom` names it; the line is replaced by
//! renaming, so the board starts the old image or the new one. `main.py` (ours) follows the line.
//! What the place has already, from a deploy that was cut or one before, stays; what stands anywhere in
//! the image that runs is copied from there ([`super::reuse`]); the rest is sent. The block with the
//! front is erased first and written last, so the firmware never mounts half an image.

use std::{fmt::Write, ops::Range};

use pytheas_release::Sha256;

use super::{
    DeployError, Deployed, Progress, Target, or_full,
    reuse::{Has, Plan, REUSE},
};
use crate::link::{
    Board, Facts, LinkError,
    files::HELPERS,
    frames::{Frames, RECEIVER, quote, teach},
};

const ROM: &str = include_str!("rom.py");
/// The board's `main.py`.
const STARTER: &str = include_str!("starter.py");

/// Whether a `main.py` starts the image of a ROMFS partition: ours, or that of another version of this
/// command.
pub fn is_starter(main_py: &[u8]) -> bool {
    let first = STARTER.lines().next().unwrap_or(STARTER);
    main_py.split(|byte| *byte == b'\n').next() == Some(first.as_bytes())
}

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
    /// What its line says of the image: size, SHA-256 and entry.
    says: String,
}

/// What the board said.
#[derive(Default)]
struct Answer {
    running: Option<Running>,
    /// SHA-256 of what is where the line says that the image is.
    whole: String,
    main: Main,
    has: Has,
    /// Short hashes of the blocks at each place.
    there: Vec<String>,
}

/// The `main.py` of the board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Main {
    #[default]
    None,
    /// Ours.
    Starter,
    /// That of another version of this command.
    OtherStarter,
    Foreign,
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
    let full = |place: &Place| DeployError::Full {
        place: format!("ROMFS partition {}", place.partition),
        need: size,
        free: place.room,
    };
    // Before the board is asked for hashes of what it cannot have.
    if places.iter().all(|place| size > place.room) {
        return Err(full(first));
    }
    let hash = Sha256::of(image).to_string();
    let entry = entry.unwrap_or("-");
    let says = format!("{size} {hash} {entry}");
    let answer = ask(board, facts, &places, size, &says)?;
    let running = answer.running.as_ref();
    let foreign = answer.main == Main::Foreign;
    if foreign && main_py == MainPy::Keep && !facts.starter {
        return Err(DeployError::MainPy);
    }
    let mut done = Deployed::nothing(Target::Rom);
    let same = running.is_some_and(|running| running.says == says) && answer.whole == hash;
    if same && answer.main == Main::Starter {
        done.unchanged = 1;
        return Ok(done);
    }
    // The place that is not running; the last one first: the firmware itself mounts the first.
    let runs = |place: &Place| running.is_some_and(|running| running.is_at(place));
    let free = places.iter().rposition(|place| !runs(place));
    let free = free.ok_or(DeployError::OnePlace)?;
    let place = places.get(free).unwrap_or(first);
    if size > place.room {
        return Err(full(place));
    }
    let parts = missing(
        image,
        place,
        answer.there.get(free).map_or("", |there| there),
    );
    let mut job = Job {
        image,
        place,
        from: running.map_or(0, |running| running.partition),
        line: format!("{} {} {says}\n", place.partition, place.at),
        hash,
        main: (answer.main != Main::Starter).then_some(foreign),
        plan: plan(
            image,
            place,
            &parts,
            running.map_or(0, |running| running.at),
            &answer.has,
        ),
    };
    let mut sent = job.send(board, facts, progress);
    if job.plan.copies
        && sent
            .as_ref()
            .is_err_and(|error| error.exception() == Some("ValueError"))
    {
        // What runs is not what its hashes said: nothing of it is used.
        job.plan = plan(image, place, &missing(image, place, ""), 0, &Has::default());
        sent = job.send(board, facts, progress);
    }
    sent.map_err(|error| or_full(error, "`/`", 512, 0))?;
    if foreign {
        done.remarks.push(
            "the board's `/main.py` is now `/main.py.bak`, or the next free name after it".into(),
        );
    }
    (done.written, done.sent_bytes) = (1, job.plan.sent.len() as u64);
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

fn ask(
    board: &mut Board,
    facts: &Facts,
    places: &[Place],
    size: u64,
    says: &str,
) -> Result<Answer, LinkError> {
    let mut program =
        "try:\n print('m',_ph('/main.py'))\n with open('/main.py') as f: print('l',f.readline())\n\
                       except Exception: pass\n_rq(("
            .to_owned();
    for place in places {
        let Place {
            partition,
            at,
            room,
            block,
        } = place;
        let _infallible = write!(program, "({partition},{at},{room},{block}),");
    }
    let _infallible = write!(program, "),{size},{})", quote(says));
    // All that is called later, too: it is sent once.
    let helpers = [RECEIVER, HELPERS, REUSE, ROM];
    let program = teach(board, facts, &helpers, &program);
    let text = board.exec(&program)?;
    let mut answer = Answer {
        there: vec![String::new(); places.len()],
        ..Answer::default()
    };
    for line in String::from_utf8_lossy(&text).lines() {
        match line.split_once(' ') {
            Some(("p", text)) => {
                let mut words = text.splitn(3, ' ');
                let mut next = || words.next().unwrap_or_default();
                if let (Ok(partition), Ok(at)) = (next().parse(), next().parse()) {
                    answer.running = Some(Running {
                        partition,
                        at,
                        says: next().to_owned(),
                    });
                }
            }
            Some(("m", hash)) if hash == Sha256::of(STARTER.as_bytes()).to_string() => {
                answer.main = Main::Starter;
            }
            Some(("m", _)) => answer.main = Main::Foreign,
            Some(("l", line)) if answer.main == Main::Foreign && is_starter(line.as_bytes()) => {
                answer.main = Main::OtherStarter;
            }
            Some(("r", hash)) => answer.whole = hash.to_owned(),
            Some(("k", hashes)) => answer.has = Has::read(hashes),
            Some(("b", text)) => {
                if let Some((number, hashes)) = text.split_once(' ')
                    && let Some(there) = number
                        .parse()
                        .ok()
                        .and_then(|at: usize| answer.there.get_mut(at))
                {
                    *there = hashes.to_owned();
                }
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// The parts of the image that the place does not have, in whole blocks, joined where they touch; the
/// one with the front last.
fn missing(image: &[u8], place: &Place, there: &str) -> Vec<Range<usize>> {
    const HASH: usize = 16;
    let erased = usize::try_from(place.block).unwrap_or(0);
    let block = if erased == 0 { 4096 } else { erased };
    let mut out: Vec<Range<usize>> = Vec::new();
    for (number, part) in image.chunks(block).enumerate().skip(1) {
        let hash = there.get(number * HASH..(number + 1) * HASH);
        if erased > 0 && hash.is_some_and(|hash| Sha256::of(part).to_string().starts_with(hash)) {
            continue;
        }
        let start = number * block;
        match out.last_mut() {
            Some(last) if last.end == start => last.end += part.len(),
            _ => out.push(start..start + part.len()),
        }
    }
    let front = &image[..image.len().min(block)];
    let hash = there.get(..HASH);
    let stays = hash.is_some_and(|hash| Sha256::of(front).to_string().starts_with(hash));
    if erased == 0 || !stays || !out.is_empty() {
        out.push(0..front.len());
    }
    out
}

/// How the parts are filled: `from` is where the image that runs begins in its partition.
fn plan(image: &[u8], place: &Place, parts: &[Range<usize>], from: u64, has: &Has) -> Plan {
    const GO: u8 = 3;
    const ERASE: u8 = 2;
    let mut plan = Plan::new(from);
    if let Some(front) = parts.last() {
        plan.go(ERASE, place.at, front.len() as u64);
    }
    plan.fill(image, has, parts, |plan, part| {
        let kind = if part.start == 0 { GO } else { ERASE };
        plan.go(kind, place.at + part.start as u64, part.len() as u64);
    });
    plan
}

/// All that one stream does.
struct Job<'a> {
    image: &'a [u8],
    place: &'a Place,
    /// The partition of the image that runs.
    from: u32,
    line: String,
    hash: String,
    /// `main.py` is written; whether one is put aside.
    main: Option<bool>,
    plan: Plan,
}

impl Job<'_> {
    fn send(
        &self,
        board: &mut Board,
        facts: &Facts,
        progress: Progress<'_>,
    ) -> Result<(), LinkError> {
        let Place {
            partition,
            at,
            block,
            ..
        } = self.place;
        let (size, total) = (self.image.len(), self.plan.sent.len() as u64);
        let mut so_far = 0;
        let mut frames = Frames::with(board, facts, &[HELPERS, REUSE, ROM])?;
        frames.exec(&format!("_ro({partition},{size},{block},{})", self.from))?;
        self.plan.send(&mut frames, &mut |count| {
            so_far += count as u64;
            progress(so_far, total);
        })?;
        frames.exec(&format!(
            "_rc({partition},{at},{size},'{}',{})",
            self.hash,
            quote(&self.line)
        ))?;
        if let Some(aside) = self.main {
            frames.exec("_pn('/main.py.~')")?;
            frames.data(STARTER.as_bytes(), &mut |_| {})?;
            if aside {
                frames.exec(super::starting::ASIDE)?;
            }
            let hash = Sha256::of(STARTER.as_bytes());
            frames.exec(&format!("_pc('/main.py.~','/main.py','{hash}')"))?;
        }
        frames.end()
    }
}
