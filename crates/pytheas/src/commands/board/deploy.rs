//! `pytheas board deploy`: an app on a board, from sources or as an image.

mod app;

use std::{
    io,
    path::{Path, PathBuf},
};

use pytheas_board::{
    deploy::{DeployError, Deployed, Files, Target, check_mpy, rom, setup, slots, starting, tree},
    link::{
        Board, Facts,
        files::{exists, read},
    },
    romfs::{self, Rom},
};
use pytheas_repo::keys::{KeyFile, boards::sign_image};
use serde::Serialize;

pub(super) use self::app::compiler;
use self::app::{App, app, early};
use super::BoardArgs;
use crate::{
    context::{Context, Progress},
    output::{Paint, Show, bytes, duration},
};

/// Where an app goes on a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// The inactive slot of a board that was set up; takes signed images only
    Slot,
    /// A ROMFS partition
    Rom,
    /// Files in the board's file system
    Files,
}

/// Bring an app to a board: only what differs, verified, then started
///
/// Takes a project with a target of the form `micropython`, a folder of
/// sources (compiled for the board), a built folder or an image. What runs now
/// stays until its successor is whole.
///
/// Examples: `pytheas board deploy`, `pytheas board deploy src`,
/// `pytheas board deploy app.romfs --to rom`,
/// `pytheas board deploy node@1.2 --repo repo`
#[derive(Debug, clap::Args)]
pub(crate) struct DeployArgs {
    /// Project, folder of sources, built folder, or image; with `--repo`, a release `NAME@VERSION`
    #[arg(default_value = ".", value_name = "FOLDER|IMAGE|RELEASE")]
    what: PathBuf,
    /// The folder of the repository that the release is published in: its signed image is taken
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    repo: Option<PathBuf>,
    /// The project's target `[tool.pytheas.target.NAME]`
    #[arg(long, short, value_name = "NAME")]
    target: Option<String>,
    /// Sign the image with this private key (Ed25519, `keys new`) for a board that trusts it: a
    /// developer's own, which `board setup --key` puts there beside the others
    #[arg(long, value_name = "FILE", conflicts_with = "repo")]
    key: Option<PathBuf>,
    /// Where it goes [default: images to the slot, else a ROMFS partition; folders of modules to a
    /// ROMFS partition with two places, else they become files]
    #[arg(long, value_enum)]
    to: Option<To>,
    /// The folder on the board for files
    #[arg(long, default_value = "/", value_name = "PATH")]
    root: String,
    /// What is started: `module` or `module:function` [default: what the image says]
    #[arg(long, short, value_name = "MODULE:FUNCTION")]
    entry: Option<String>,
    /// Send sources as they are instead of compiled
    #[arg(long)]
    source: bool,
    /// Leave the running program as it is; the new one starts at the next restart
    #[arg(long)]
    no_restart: bool,
    /// Put a `main.py` that Pytheas did not write aside, as `main.py.bak`
    #[arg(long)]
    force: bool,
    /// Use no network
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    board: BoardArgs,
}

#[derive(Serialize)]
struct Shown {
    port: String,
    /// Why it went there, when nobody said where.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    restarted: bool,
    seconds: f64,
    #[serde(flatten)]
    done: Deployed,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let done = &self.done;
        let seconds = duration(std::time::Duration::from_secs_f64(self.seconds));
        let place = match done.target {
            Target::Slot => "the inactive slot",
            Target::Rom => "a ROMFS partition",
            Target::Files => "the file system",
        };
        if !done.changed() {
            let then = if self.restarted { "; restarted" } else { "" };
            return out.line(format!(
                "the board on {} has it already ({seconds}){then}",
                self.port
            ));
        }
        let what = match done.target {
            Target::Files => format!(
                "{} files written, {} unchanged, {} removed",
                done.written, done.unchanged, done.removed
            ),
            _ => "an image".to_owned(),
        };
        let sent = bytes(done.sent_bytes);
        out.line(format!(
            "deployed to {place} on {}: {what}; {sent} sent in {seconds}",
            self.port
        ))?;
        if let Some(why) = self.why {
            out.line(format!(
                "chosen because {why}; `--to` chooses another place"
            ))?;
        }
        match (done.target, self.restarted) {
            (Target::Slot, true) => {
                out.line("restarted; the release must now confirm itself (watch it with `pytheas board logs`)")
            }
            (_, true) => out.line("restarted"),
            _ => out.line("it starts at the next restart"),
        }
    }
}

/// Deploys it.
pub(super) fn run(args: &DeployArgs, context: &Context) -> miette::Result<()> {
    let began = std::time::Instant::now();
    let progress = context.progress();
    progress.detail("asking the board");
    let (asked, early) = std::thread::scope(|scope| {
        let compiling = scope.spawn(|| early(args));
        (args.board.ask(context), compiling.join().ok().flatten())
    });
    let (board, facts) = asked?;
    let ran = facts.has_main;
    let done = deploy(args, board, facts, early, &progress, context);
    drop(progress);
    if done.is_err() && ran {
        context.note(
            "the board's program was stopped for this; `pytheas board reset` starts it again",
        );
    }
    let mut shown = done?;
    for remark in shown.done.remarks.drain(..) {
        context.warn(remark);
    }
    shown.seconds = began.elapsed().as_secs_f64();
    context.show(&shown)
}

fn deploy(
    args: &DeployArgs,
    mut board: Board,
    facts: Facts,
    early: Option<Files>,
    progress: &Progress,
    context: &Context,
) -> miette::Result<Shown> {
    let (app, wants_package) = match early {
        Some(files) => (App::Files(files), false),
        None => app(args, &facts, context)?,
    };
    let mut told = |sent: u64, total: u64| {
        progress.detail(format!("sending {} of {}", bytes(sent), bytes(total)));
    };
    let (to, why) = to(args, &facts, &app);
    if wants_package && to != To::Slot && !setup::has_package(&mut board)? {
        let package = super::setup::package(&facts, args.offline, context)?;
        setup::bring_package(&mut board, &facts, &package)?;
        context.note("put the package `pytheas` on the board: the app imports it");
    }
    let app = match &args.key {
        Some(key) => App::Image(signed(key, app, to, &mut board)?),
        None => app,
    };
    let done = match bring(args, &mut board, &facts, app.clone(), to, &mut told) {
        Err(error) if out_of_memory(&error) => {
            // The program that was interrupted still has its heap.
            board.renew()?;
            let facts = Facts::ask(&mut board)?;
            bring(args, &mut board, &facts, app, to, &mut told)?
        }
        done => done?,
    };
    // Also when nothing differs: what ran was stopped for the question, and after a deploy that was
    // killed before its own restart, what runs is older than what is there.
    let restarted = !args.no_restart;
    if restarted {
        board.restart()?;
        if done.target == Target::Rom {
            board.wait_for_image()?;
        }
    } else {
        board.leave()?;
    }
    Ok(Shown {
        port: board.port().to_owned(),
        why,
        restarted,
        seconds: 0.0,
        done,
    })
}

fn out_of_memory(error: &miette::Report) -> bool {
    error
        .downcast_ref::<DeployError>()
        .is_some_and(DeployError::is_out_of_memory)
}

/// The image signed by the developer's own key, with the counter that the board is at: what is
/// published later comes after it.
fn signed(key: &Path, app: App, to: To, board: &mut Board) -> miette::Result<Vec<u8>> {
    let (App::Image(image), To::Slot) = (app, to) else {
        return Err(miette::miette!(
            code = "pytheas::board::no_slot",
            help = "`pytheas board setup --keys …` prepares a board for signed images; others take a project without `--key`",
            "`--key` signs an image for the slot of a board that was set up, and this goes elsewhere"
        ));
    };
    let noted = &slots::status(board)?["counter"];
    let counter = counter(noted).ok_or_else(|| {
        miette::miette!(
            code = "pytheas::board::counter",
            help = "nothing was signed: what the board notes of itself is damaged",
            "the board says that its releases are counted to `{noted}`, which none can follow"
        )
    })?;
    let key = KeyFile::load(key, &crate::commands::keys::ask)?;
    Ok(sign_image(&key, counter, &image)?)
}

/// The counter that a board notes; none when no release could follow it.
fn counter(noted: &serde_json::Value) -> Option<u32> {
    if noted.is_null() {
        return Some(0);
    }
    let counter = u32::try_from(noted.as_u64()?).ok()?;
    (counter < u32::MAX).then_some(counter)
}

/// Where it goes, and why if nobody said so and there was a choice.
fn to(args: &DeployArgs, facts: &Facts, app: &App) -> (To, Option<&'static str>) {
    let files = match (args.to, app) {
        (Some(to), _) => return (to, None),
        (None, App::Image(_)) if facts.prepared => return (To::Slot, None),
        (None, App::Image(_)) if !facts.rom.is_empty() => return (To::Rom, None),
        (None, App::Image(_)) => return (To::Files, None),
        (None, App::Files(files)) => files,
    };
    let plain = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        !(name.ends_with(".py") || name.ends_with(".mpy"))
    };
    let has = |path: &str| files.contains_key(path);
    let two_places = facts.rom.len() > 1 || facts.rom.iter().any(|rom| rom.block > 0);
    if !two_places {
        return (To::Files, None);
    }
    let why = if facts.prepared {
        "the board's ROMFS partitions take signed images only"
    } else if args.root != "/" {
        "`--root` names a folder of the file system"
    } else if has("boot.py") {
        "the app has a `boot.py`, which starts from the file system only"
    } else if facts.has_main && !facts.starter {
        "the board starts a `main.py` of its own"
    } else if files.keys().any(|path| plain(path.as_str())) {
        "the app has files that are no modules, which it may open by their path"
    } else {
        return (
            To::Rom,
            Some(
                "the board has two places for images: fast, and a power cut leaves one of them whole",
            ),
        );
    };
    (To::Files, Some(why))
}

fn bring(
    args: &DeployArgs,
    board: &mut Board,
    facts: &Facts,
    app: App,
    to: To,
    told: &mut dyn FnMut(u64, u64),
) -> miette::Result<Deployed> {
    let main_py = if args.force {
        rom::MainPy::PutAside
    } else {
        rom::MainPy::Keep
    };
    let new_folder = to == To::Files && is_new_folder(board, facts, &args.root)?;
    let mut done = match (to, app) {
        (To::Files, App::Files(files)) => {
            let mut done = tree::deploy(board, facts, &args.root, &files, told)?;
            if facts.starter
                && facts.has_main
                && main_of(files.keys()).is_none()
                && rom::is_starter(&read(board, "/main.py", &mut |_| {})?)
            {
                done.remarks.push(
                    "the board still starts the image in its ROMFS partition, and the image's modules come first: `pytheas board fs rm /main.py` ends that".into(),
                );
            }
            done
        }
        (To::Files, App::Image(image)) => {
            let files = Rom::read(&image)?.files;
            let files = files
                .into_iter()
                .map(|(path, bytes)| (path, bytes.to_vec()));
            let mut files: Files = files.collect();
            let said = pytheas_release::board::read(&image).ok();
            let entry = args.entry.clone();
            let entry = entry.or(said.map(|image| image.manifest.entry));
            if let Some(entry) = entry.filter(|_| args.root == "/") {
                starting::with_main(board, &mut files, &entry, main_py)?;
            }
            tree::deploy(board, facts, &args.root, &files, told)?
        }
        (To::Slot, App::Image(image)) => slots::deploy(board, facts, &image, told)?,
        (To::Slot, App::Files(_)) => {
            return Err(miette::miette!(
                code = "pytheas::board::needs_image",
                help = "build the project (`pytheas build`), publish it, and deploy the signed image; while you develop, `--to files` or `--to rom` take sources",
                "a slot takes a signed image, and this is a folder of files"
            ));
        }
        (To::Rom, App::Image(image)) => {
            let rom = Rom::read(&image)?;
            check_mpy(facts, rom.files.iter().map(|(path, bytes)| (path, *bytes)))?;
            let said = pytheas_release::board::read(&image).ok();
            let entry = args
                .entry
                .clone()
                .or(said.map(|image| image.manifest.entry));
            let entry = entry.or_else(|| main_of(rom.files.keys()));
            rom::deploy(board, facts, &image, entry.as_deref(), main_py, told)?
        }
        (To::Rom, App::Files(files)) => {
            check_mpy(facts, files.iter().map(|(path, bytes)| (path, &bytes[..])))?;
            let image = romfs::plain(&files)?;
            let entry = args.entry.clone().or_else(|| main_of(files.keys()));
            rom::deploy(board, facts, &image, entry.as_deref(), main_py, told)?
        }
    };
    if new_folder {
        done.remarks.push(format!(
            "`{}` was not there: it is a new folder of the board's own file system, and no card or other device that is to be mounted there",
            args.root
        ));
    }
    Ok(done)
}

/// Whether files go to a folder of the board's own file system that is not there yet.
fn is_new_folder(board: &mut Board, facts: &Facts, root: &str) -> miette::Result<bool> {
    let own = facts
        .file_system(&format!("{root}/x"))
        .is_none_or(|system| ["/", "/flash"].contains(&system.path.as_str()));
    Ok(own && !exists(board, root)?)
}

/// `main` when the app has such a module.
fn main_of<'a>(mut paths: impl Iterator<Item = &'a pytheas_release::RelPath>) -> Option<String> {
    let main = paths.any(|path| ["main.py", "main.mpy"].contains(&path.as_str()));
    main.then(|| "main".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::counter;

    #[test]
    fn a_counter_that_no_release_could_follow_is_not_signed() {
        assert_eq!(counter(&json!(7)), Some(7));
        assert_eq!(counter(&json!(null)), Some(0));
        for wrong in [json!(u32::MAX), json!(1_u64 << 40), json!(-1), json!("7")] {
            assert_eq!(counter(&wrong), None, "{wrong}");
        }
    }
}
