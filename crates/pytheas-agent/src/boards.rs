//! One board on a port of this device: reached over its line, its other slot filled, its new release
//! watched until it has confirmed itself, or taken back.
//!
//! Whoever reaches for a board's REPL stops the app on it, so each visit ends with a restart, and
//! while a release proves itself nobody visits: the board says on its line how it ended.

pub(crate) mod configured;
pub(crate) mod fetched;
pub(crate) mod health;

use std::{
    thread,
    time::{Duration, Instant},
};

use pytheas_board::{
    deploy::{DeployError, slots},
    link::{Board, Facts, LinkError, Stop, repl::Options},
};
use pytheas_release::{Platform, Sha256, board as image};
use pytheas_update::{Failure, Reason};
use serde_json::Value;

use self::{configured::Wanted, health::Health};
use crate::{
    failure::{self, Trouble},
    settings::BoardSettings,
};

/// What a board is asked: its slots, the seconds a release has to confirm itself, the last crash with
/// its release, and the hash of the settings that it has of a hub.
fn question() -> String {
    format!(
        "import gc,json,pytheas\npytheas.ready()\n\
         _pC=pytheas.load('crash').get\n\
         print(json.dumps([{},pytheas.config.get('confirm',60),_pC('why'),_pC('of'),\
         pytheas.sha256(pytheas.get('settings')).digest().hex()]))\ndel _pC\n\
         gc.collect()",
        slots::RECORD
    )
}

/// Time that a board gets beside what its settings give a release.
const MARGIN: Duration = Duration::from_secs(20);
/// Longest time that a board's own settings may give.
const CONFIRM_MAX: u64 = 3600;
/// The part of a board's free heap that is counted on while an image is sent.
const HEAP_PART: u64 = 4;
/// Between two looks for a board that is away.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest line of a board that is kept.
const LINE_MAX: usize = 4096;

/// A signed image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    bytes: Vec<u8>,
    sha256: Sha256,
    /// As the board says it: `sensor-node 1.2.0`.
    title: String,
}

impl Image {
    /// The image in `bytes`, if it is one.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, Failure> {
        let read = image::read(&bytes).map_err(|error| {
            Failure::new(Reason::Content, format!("the image is unusable: {error}"))
        })?;
        let title = format!("{} {}", read.manifest.name, read.manifest.version);
        Ok(Self {
            sha256: Sha256::of(&bytes),
            title,
            bytes,
        })
    }

    pub(crate) fn sha256(&self) -> Sha256 {
        self.sha256
    }
}

/// What a board said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) platform: Option<Platform>,
    /// What is to run there: `sensor-node 1.2.0`.
    pub(crate) runs: Option<String>,
    /// The image's hash.
    pub(crate) sha256: Option<Sha256>,
    /// It has not confirmed itself yet.
    pub(crate) pending: bool,
    /// Seconds that a release has to do so.
    confirm: Duration,
    /// Why the release before was given up, or this one is kept.
    why: Option<String>,
    /// The last crash's traceback.
    crash: Option<String>,
    /// The release that crashed: `sensor-node 1.2.0`.
    crashed: Option<String>,
    /// The file of the hub's settings.
    settings: Option<Sha256>,
    /// Why it did not take those it was to get.
    pub(crate) because: Option<String>,
    /// Images that were given up there and still lie there.
    given_up: Vec<Sha256>,
    /// Images that lie whole in either slot and were not.
    usable: Vec<Sha256>,
    /// How it is.
    pub(crate) health: Health,
}

impl Seen {
    fn read(facts: &Facts, answer: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(answer.trim_ascii()).ok()?;
        let [status, confirm, crash, crashed, settings] = answer.as_array()?.as_slice() else {
            return None;
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let hash = |slot: &Value| slot["sha256"].as_str().and_then(|hex| hex.parse().ok());
        let slots = status["slots"].as_array()?;
        let active = status["active"]
            .as_u64()
            .and_then(|at| usize::try_from(at).ok());
        let active = active
            .and_then(|at| slots.get(at))
            .filter(|slot| slot.is_object());
        let is_bad = |slot: &&Value| slot["bad"].as_u64().is_some_and(|bad| bad != 0);
        Some(Self {
            platform: facts.release_platform().parse().ok(),
            runs: active.map(|slot| {
                let word = |key: &str| slot[key].as_str().unwrap_or("?").to_owned();
                format!("{} {}", word("name"), word("version"))
            }),
            sha256: active.and_then(hash),
            pending: status["pending"].as_bool().unwrap_or(false),
            confirm: Duration::from_secs(confirm.as_u64().unwrap_or(60).min(CONFIRM_MAX)),
            why: text(&status["why"]),
            crash: text(crash),
            crashed: text(crashed),
            settings: settings.as_str().and_then(|hex| hex.parse().ok()),
            because: None,
            given_up: slots.iter().filter(is_bad).filter_map(hash).collect(),
            usable: slots
                .iter()
                .filter(|slot| !is_bad(slot))
                .filter_map(hash)
                .collect(),
            health: Health::new(),
        })
    }
}

/// What an error of the link means: try later, or not.
fn trouble(at: &BoardSettings, error: &DeployError) -> Trouble {
    let name = &at.name;
    let reason = match error {
        DeployError::Link(link) if link.exception() == Some("ImportError") => {
            let message = format!(
                "board `{name}` on `{}` was not set up for signed images\n\
                 help: `pytheas board setup --port {} --keys …`",
                at.port, at.port
            );
            return Failure::new(Reason::Incompatible, message).into();
        }
        DeployError::Link(LinkError::Raised { .. }) => Reason::Device,
        DeployError::Link(_) => {
            let text = failure::failed(Reason::Device, error).message().to_owned();
            return Trouble::Later(format!("board `{name}`: {text}"));
        }
        DeployError::Full { .. } => Reason::NoSpace,
        DeployError::Refused { why } if why.contains("sign") => Reason::Untrusted,
        _ => Reason::Incompatible,
    };
    let text = failure::failed(reason.clone(), error).message().to_owned();
    Failure::new(reason, format!("board `{name}`: {text}")).into()
}

/// Does `work` in the board's REPL; afterwards the board restarts, whatever came of it.
fn visit<T>(
    at: &BoardSettings,
    stop: &Stop,
    work: impl FnOnce(&mut Board, &Facts) -> Result<T, DeployError>,
) -> Result<(T, Board), Trouble> {
    let trouble = |error: DeployError| trouble(at, &error);
    let options = Options {
        baud: at.baud,
        stop: stop.clone(),
        ..Options::default()
    };
    let mut board = Board::open(&at.port, options).map_err(|error| trouble(error.into()))?;
    board.enter().map_err(|error| trouble(error.into()))?;
    let result = Facts::ask(&mut board)
        .map_err(DeployError::from)
        .and_then(|mut facts| {
            // The package and what it answers take their part of the heap before the image comes.
            facts.heap_free /= HEAP_PART;
            work(&mut board, &facts)
        });
    // Also when we are to stop: the app on the board is not running until then.
    board.options().stop = Stop::default();
    let restarted = board.restart();
    board.options().stop = stop.clone();
    let done = result.map_err(trouble)?;
    restarted.map_err(|error| trouble(error.into()))?;
    Ok((done, board))
}

fn ask(board: &mut Board, facts: &Facts) -> Result<Seen, DeployError> {
    let answer = board.exec(&question())?;
    let unexpected = || LinkError::Answer {
        port: board.port().to_owned(),
        seen: String::from_utf8_lossy(&answer).into_owned(),
    };
    let mut seen = Seen::read(facts, &answer).ok_or_else(unexpected)?;
    seen.health = health::ask(board, seen.crash.as_deref(), seen.crashed.as_deref());
    Ok(seen)
}

/// Asks the board what it is and what it runs, and gives it the settings `wanted` if it has others.
///
/// # Errors
/// [`Trouble::Later`] when it does not answer.
pub(crate) fn look(
    at: &BoardSettings,
    wanted: Option<&Wanted>,
    stop: &Stop,
) -> Result<Seen, Trouble> {
    let (seen, _) = visit(at, stop, |board, facts| {
        let mut seen = ask(board, facts)?;
        let wanted = wanted.filter(|wanted| seen.settings != Some(wanted.sha256));
        if let Some(wanted) = wanted {
            seen.because = configured::put(board, facts, wanted)?;
            if seen.because.is_none() {
                seen.settings = Some(wanted.sha256);
            }
        }
        Ok(seen)
    })?;
    Ok(seen)
}

impl Seen {
    /// Whether the board has these settings.
    pub(crate) fn has(&self, wanted: &Wanted) -> bool {
        self.settings == Some(wanted.sha256)
    }
}

/// Fills the board's other slot with `image`, which the board checks; what runs goes on running.
///
/// # Errors
/// [`Trouble::Later`] when it does not answer, [`Trouble::Failed`] when it refuses.
pub(crate) fn fill(at: &BoardSettings, image: &Image, stop: &Stop) -> Result<Seen, Trouble> {
    let (seen, _) = visit(at, stop, |board, facts| {
        let seen = ask(board, facts)?;
        // What an operator goes back to lies in the other slot; sent anew it would be refused as old.
        if !seen.usable.contains(&image.sha256) {
            slots::fill(board, facts, &image.bytes, &mut |_, _| {})?;
        }
        Ok(seen)
    })?;
    Ok(seen)
}

/// Gives `image` up on the board, if it is to run there, for what ran before.
///
/// # Errors
/// [`Trouble::Later`] when the board does not answer.
pub(crate) fn take_back(at: &BoardSettings, image: Sha256, stop: &Stop) -> Result<Seen, Trouble> {
    let (seen, _) = visit(at, stop, |board, facts| {
        let seen = ask(board, facts)?;
        let to_do = seen.sha256 == Some(image);
        if to_do && slots::go_back(board, "taken back by the gateway")? {
            return ask(board, facts);
        }
        Ok(seen)
    })?;
    Ok(seen)
}

/// Lets the board start `image` and waits until it has confirmed itself.
///
/// # Errors
/// Why it did not, in the board's words.
pub(crate) fn prove(
    at: &BoardSettings,
    image: &Image,
    stop: &Stop,
    seen: &mut dyn FnMut(&Seen),
) -> Result<(), Failure> {
    let (before, mut board) = patiently(at, stop, || {
        visit(at, stop, |board, facts| {
            let seen = ask(board, facts)?;
            let given_up = seen.given_up.contains(&image.sha256);
            if seen.sha256 != Some(image.sha256)
                && seen.usable.contains(&image.sha256)
                && slots::try_other(board, image.sha256)?
            {
                return ask(board, facts);
            }
            if seen.sha256 != Some(image.sha256) && !given_up {
                slots::deploy(board, facts, &image.bytes, &mut |_, _| {})?;
                return ask(board, facts);
            }
            Ok(seen)
        })
    })?;
    seen(&before);
    if before.sha256 != Some(image.sha256) {
        return Err(not_confirmed(at, image, &before));
    }
    if before.pending {
        let until = Instant::now() + before.confirm + MARGIN;
        let confirmed = listen(at, &mut board, &image.title, until, stop);
        drop(board);
        if confirmed {
            seen(&Seen {
                pending: false,
                ..before
            });
            return Ok(());
        }
        let (after, _) = patiently(at, stop, || visit(at, stop, ask))?;
        seen(&after);
        if after.sha256 != Some(image.sha256) || after.pending {
            return Err(not_confirmed(at, image, &after));
        }
    }
    Ok(())
}

fn not_confirmed(at: &BoardSettings, image: &Image, seen: &Seen) -> Failure {
    let mut message = format!(
        "`{}` did not confirm itself on board `{}`",
        image.title, at.name
    );
    match (seen.pending, &seen.why) {
        (true, _) => message.push_str(&format!(" within {} s", seen.confirm.as_secs())),
        (false, Some(why)) => message.push_str(&format!(": {why}")),
        (false, None) => {}
    }
    if let Some(crash) = &seen.crash {
        message.push('\n');
        message.push_str(crash.trim_end());
    }
    Failure::new(Reason::NotReady, message)
}

/// Tries `work` until the board answers, as long as an update waits for it.
fn patiently<T>(
    at: &BoardSettings,
    stop: &Stop,
    mut work: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Failure> {
    let until = Instant::now() + at.wait;
    loop {
        match work() {
            Ok(done) => return Ok(done),
            Err(Trouble::Failed(failure)) => return Err(failure),
            Err(Trouble::Later(why)) if Instant::now() >= until || stop.wanted() => {
                return Err(Failure::new(Reason::Device, why));
            }
            Err(Trouble::Later(_)) => thread::sleep(AGAIN),
        }
    }
}

/// Waits, without a word to the board, for its own about the release `title`: whether it is
/// confirmed. A line that ends (a reset of a board on USB) is opened again.
fn listen(at: &BoardSettings, board: &mut Board, title: &str, until: Instant, stop: &Stop) -> bool {
    let says = format!("pytheas: {title}: ");
    let mut text = String::new();
    while Instant::now() < until && !stop.wanted() {
        let Ok(bytes) = board.output(until.min(Instant::now() + AGAIN)) else {
            thread::sleep(AGAIN);
            let options = Options {
                baud: at.baud,
                stop: stop.clone(),
                ..Options::default()
            };
            if let Ok(again) = Board::open(&at.port, options) {
                *board = again;
            }
            continue;
        };
        text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, rest)) = text.split_once('\n') {
            if let Some((_, word)) = line.split_once(&says) {
                return word.trim_end() == "confirmed";
            }
            text = rest.to_owned();
        }
        if text.len() > LINE_MAX {
            text.clear();
        }
    }
    false
}
