//! A signed image for a board that was set up: the board's own writer takes it, with the same checks
//! as over the air (signature, platform, version counter), into the slot that is not running. A
//! write that was cut is continued where it stopped; what stands anywhere in the image that runs is
//! copied from there ([`super::reuse`]), and what was written is checked as if all had been sent.

use pytheas_release::{Sha256, board};

use super::{
    DeployError, Deployed, Progress, Target, or_full,
    reuse::{Has, Plan, REUSE},
};
use crate::link::{
    Board, Facts, LinkError,
    frames::{Frames, quote, teach},
};

const SLOTS: &str = include_str!("slots.py");
/// So many bytes are sent sooner than the board has said what it has of them.
const LITTLE: usize = 4096;
/// The most of a board's free heap that is counted on, in bytes: frames of the writer's own step.
const HEAP: u64 = 12 * 4096;
/// What the board says of a slot that does not have what the manifest says (`hub.py`).
const OTHER: &str = "its content was not signed";

/// The board's record as an object, by the names that [`status`] shows: `pytheas.ready()` comes first.
/// On the board it is a list, because names cost flash there.
pub const RECORD: &str = "dict(zip('n active pending tries counter why action report write keys'.split(),\
    pytheas.r[2:]),slots=pytheas.r[:2])";

/// What the board says of its slots: its record, with names.
///
/// # Errors
/// [`LinkError`]; that the board was not set up among them.
pub fn status(board: &mut Board) -> Result<serde_json::Value, LinkError> {
    let program = format!("import json,pytheas\npytheas.ready()\nprint(json.dumps({RECORD}))");
    let answer = board.exec(&program)?;
    serde_json::from_slice(answer.trim_ascii()).map_err(|_| board.unexpected(&answer))
}

/// Brings a signed image to the board. It starts at the next restart, and must confirm itself.
///
/// # Errors
/// [`DeployError::Refused`] in the board's words; [`DeployError`] otherwise. What runs is untouched.
pub fn deploy(
    board: &mut Board,
    facts: &Facts,
    image: &[u8],
    progress: Progress<'_>,
) -> Result<Deployed, DeployError> {
    send_image(board, facts, image, true, progress)
}

/// Brings all of a signed image but its front to the board: it was checked and lies there, and still
/// nothing starts it. [`deploy`] of the same image then has next to nothing to do.
///
/// # Errors
/// As [`deploy`].
pub fn fill(
    board: &mut Board,
    facts: &Facts,
    image: &[u8],
    progress: Progress<'_>,
) -> Result<Deployed, DeployError> {
    send_image(board, facts, image, false, progress)
}

/// Gives what runs up for the image in the other slot, if that one is whole and was not given up
/// itself: it starts at the next restart. Whether there was one. The version counter is not asked,
/// because only an image that the board has taken is there.
///
/// # Errors
/// [`LinkError`] when the board does not answer.
pub fn go_back(board: &mut Board, why: &str) -> Result<bool, LinkError> {
    let program = format!(
        "import pytheas\npytheas.ready()\n_pG=pytheas.runs() and \
         pytheas.usable(1-pytheas.r[3])\nif _pG:pytheas.end(0,{})\nprint('went',bool(_pG))",
        quote(why)
    );
    let answer = board.exec(&program)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().any(|line| line.trim() == "went True"))
}

/// Lets the image `sha256` be started at the next restart, on probation, when it lies whole in the
/// other slot and was not given up there. Whether it does. The version counter is not asked, because
/// only an image that the board has taken is there.
///
/// # Errors
/// [`LinkError`] when the board does not answer.
pub fn try_other(board: &mut Board, sha256: Sha256) -> Result<bool, LinkError> {
    let program = format!(
        "import pytheas\npytheas.ready()\n_pO=1-(pytheas.r[3] or 0)\n_pG=pytheas.usable(_pO)\n\
         _pG=bool(_pG and _pG['sha256']=='{sha256}')\nif _pG:pytheas.save({{3:_pO,4:True,5:0,7:None,\
         8:None}})\nprint('went',_pG)"
    );
    let answer = board.exec(&program)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().any(|line| line.trim() == "went True"))
}

/// What of the new image may be taken from what the board has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    /// What an earlier write left, and what stands in the image that runs.
    Both,
    /// What an earlier write left: nothing runs, or it was not what it seemed.
    Left,
}

fn send_image(
    board: &mut Board,
    facts: &Facts,
    image: &[u8],
    finish: bool,
    progress: Progress<'_>,
) -> Result<Deployed, DeployError> {
    let manifest = board::read(image)?.manifest;
    let hash = Sha256::of(image).to_string();
    let mut done = Deployed::nothing(Target::Slot);
    let status = status(board)?;
    let active = status["active"]
        .as_u64()
        .and_then(|at| usize::try_from(at).ok());
    if active.is_some_and(|at| status["slots"][at]["sha256"] == hash.as_str()) {
        done.unchanged = 1;
        return Ok(done);
    }
    // The manifest can say it before a byte of the body is sent.
    if let Some(version) = manifest.mpy
        && let Some(own) = facts.board_mpy()
        && own.version != version
    {
        return Err(DeployError::Mpy {
            path: format!("{} {}", manifest.name, manifest.version),
            source: crate::mpy::Incompatible::Version {
                board: own.version,
                file: version,
            },
        });
    }
    // The package has its part of the heap by then, and an app that was stopped its own.
    let facts = &Facts {
        heap_free: facts.heap_free.min(HEAP),
        ..facts.clone()
    };
    let runs = active.is_some_and(|at| status["slots"][at].is_object());
    let take = if runs { Take::Both } else { Take::Left };
    let mut sent = 0;
    let mut taken = write(board, facts, image, take, finish, &mut sent, progress);
    let other =
        |error: &DeployError| matches!(error, DeployError::Refused { why } if why.contains(OTHER));
    if sent < image.len() as u64 && taken.as_ref().is_err_and(other) {
        // It read back another image than this one, and has thrown it away.
        taken = write(board, facts, image, Take::Left, finish, &mut sent, progress);
    }
    taken?;
    (done.written, done.sent_bytes) = (1, sent);
    Ok(done)
}

/// Gives the image to the board's writer; `sent` becomes what went over the line.
fn write(
    board: &mut Board,
    facts: &Facts,
    image: &[u8],
    take: Take,
    finish: bool,
    sent: &mut u64,
    progress: Progress<'_>,
) -> Result<(), DeployError> {
    let total = image.len() as u64;
    let failed = |error: LinkError| match error.last_line() {
        Some(line) if error.exception() == Some("Refused") => DeployError::Refused {
            why: line.trim_start_matches("Refused:").trim().to_owned(),
        },
        _ => or_full(error, "the slot", total, 0),
    };
    let begin = format!(
        "from pytheas import hub as _pW\n_pW.start({total},'{}')\nprint('done',_pW.done)",
        Sha256::of(image)
    );
    let answer = board.exec(&begin).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let there = answer.lines().find_map(|line| line.strip_prefix("done "));
    let there: usize = there.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let there = there.min(image.len());
    let has = if take == Take::Both && image.len() - there > LITTLE {
        running(board, facts)?
    } else {
        Has::default()
    };
    let mut plan = Plan::new(0);
    let rest = there..image.len();
    plan.fill(image, &has, std::slice::from_ref(&rest), |_, _| {});
    let to_send = plan.sent.len() as u64;
    *sent = 0;
    let mut told = |count: usize| {
        *sent += count as u64;
        progress(*sent, to_send);
    };
    let mut send = || {
        let mut frames;
        if plan.copies {
            frames = Frames::with(board, facts, &[REUSE, SLOTS])?;
            frames.exec("_sg()")?;
            plan.send(&mut frames, &mut told)?;
        } else {
            frames = Frames::begin(board, facts, "_pw=_pW.write")?;
            frames.data(&plan.sent, &mut told)?;
        }
        if finish {
            frames.exec("_pW.finish()")?;
        }
        frames.end()
    };
    send().map_err(failed)
}

/// The blocks of the image that runs; none when there is no such image, or no memory to ask for them.
fn running(board: &mut Board, facts: &Facts) -> Result<Has, LinkError> {
    let program = teach(board, facts, &[REUSE, SLOTS], "_sq()");
    let answer = match board.exec(&program) {
        Err(LinkError::Raised { .. }) => return Ok(Has::default()),
        answer => answer?,
    };
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().find_map(|line| line.strip_prefix("k "));
    Ok(line.map_or_else(Has::default, Has::read))
}
