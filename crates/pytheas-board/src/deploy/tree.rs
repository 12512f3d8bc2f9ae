//! An app as files in a board's file system.
//!
//! One question brings the hashes of what is there. New files are written to `.pytheas-new`, read
//! back and compared; when all are whole, the board alone renames them to their places, removes what
//! was deployed earlier and is gone now, and puts `main.py` last. Where more than one file changes, a
//! `boot.py` of ours stands there meanwhile, which ends that after a power cut before anything is
//! imported. What waits in `.pytheas-new` after an earlier cut is used by the next deploy.
//! `.pytheas-files` lists what is ours: nothing else is removed.

use std::{collections::BTreeSet, fmt::Write};

use pytheas_release::{RelPath, Sha256};

use super::{DeployError, Deployed, Files, Progress, Target, check_mpy, or_full};
use crate::link::{
    Board, Facts, LinkError,
    facts::FileSystem,
    files::HELPERS,
    frames::{Frames, RECEIVER, quote, teach},
};

const TREE: &str = include_str!("tree.py");
const FINISH: &str = include_str!("finish.py");
const WAITING: &str = "/.pytheas-new";
const LIST: &str = "/.pytheas-files";
/// Below the root, as `tree.py` names it.
const SPARE: &str = ".pytheas-new/spare";
/// How our `boot.py` begins.
const STARTS: &str =
    "# Written by `pytheas board deploy`: ends what a power cut has interrupted.\n";
/// A Ctrl-C meanwhile would leave it half done until the next start.
const UNSTOPPED: &str =
    "try:\n    import micropython\n    micropython.kbd_intr(-1)\nexcept Exception:\n    pass\n";
/// Files in one question: the board holds their names in memory.
const ASK_AT_ONCE: usize = 100;
/// Files that start a board; they are changed last.
const STARTING: [&str; 2] = ["boot.py", "main.py"];

/// What the board has of the files.
#[derive(Default)]
struct Known {
    ours: BTreeSet<String>,
    waiting: BTreeSet<String>,
    /// The board has begun to put files in place, and was not let end it.
    begun: bool,
    /// Files where folders are to be; folders (with `/` at the end) where files are, and what is in them.
    in_the_way: Vec<String>,
    hashes: Vec<String>,
    hidden_by: Vec<String>,
}

/// Brings the files below `root` (`/`, or the folder of another file system) to the board.
///
/// # Errors
/// [`DeployError`]; the files that ran before are untouched, unless the power went while the board
/// renamed.
pub fn deploy(
    board: &mut Board,
    facts: &Facts,
    root: &str,
    files: &Files,
    progress: Progress<'_>,
) -> Result<Deployed, DeployError> {
    let root = root.trim_end_matches('/');
    let system = facts.file_system(&format!("{root}/x"));
    let place = match root {
        "" => "`/`".to_owned(),
        root => format!("`{root}`"),
    };
    if system.is_some_and(|system| system.kind == "VfsRom") {
        return Err(DeployError::ReadOnly { place });
    }
    check_mpy(facts, files.iter().map(|(path, bytes)| (path, &bytes[..])))?;
    check_names(files, system)?;
    let boot = system.and_then(boot_path);
    let mut known = ask(board, facts, root, files, boot)?;
    if known.begun {
        end_begun(board, facts, root, boot)?;
        known = ask(board, facts, root, files, boot)?;
    }

    let mut done = Deployed::nothing(Target::Files);
    let mut changed = Vec::new();
    for ((path, bytes), there) in files.iter().zip(&known.hashes) {
        let hash = Sha256::of(bytes).to_string();
        if *there == hash {
            done.unchanged += 1;
        } else {
            let key = Sha256::of(format!("{path}\n{hash}").as_bytes()).to_string();
            changed.push((path, bytes, hash, key[..16].to_owned()));
        }
    }
    let gone: Vec<_> = known
        .ours
        .iter()
        .filter(|path| !files.contains_key(path.as_str()))
        .collect();
    let folders = known.folders_in_the_way(root, &gone)?;
    let hiding = known.hidden_by.iter().filter(|path| {
        let inside = path
            .strip_prefix(root)
            .unwrap_or(path)
            .trim_start_matches('/');
        !gone.iter().any(|gone| *gone == inside) && !files.contains_key(inside)
    });
    done.remarks.extend(hiding.map(|path| {
        format!("`{path}` on the board hides the `.mpy` of the same name: remove it with `pytheas board fs rm`")
    }));
    (done.written, done.removed) = (changed.len(), gone.len());
    let same_list = known.ours.len() == files.len() && gone.is_empty();
    if changed.is_empty() && same_list {
        return Ok(done);
    }

    let list: String = files.keys().fold(String::new(), |mut list, path| {
        let _infallible = writeln!(list, "{path}");
        list
    });
    // One rename is whole or has not happened.
    let several = changed.len() + gone.len() > 1;
    let boot = boot.filter(|_| several);
    let todo = todo(root, &changed, &gone, &folders, boot);
    let missing: Vec<_> = changed
        .iter()
        .filter(|(.., key)| !known.waiting.contains(key))
        .collect();
    let total: u64 = missing
        .iter()
        .map(|(_, bytes, ..)| bytes.len() as u64)
        .sum();
    let need = total + (list.len() + todo.len()) as u64;
    let free = system.map_or(u64::MAX, |system| system.free);
    let spare = system.filter(|_| several).and_then(|system| {
        let sizes = missing.iter().map(|(_, bytes, ..)| bytes.len());
        spare(system, sizes.chain([list.len(), todo.len()]), &changed)
    });
    if need > free {
        return Err(DeployError::Full { place, need, free });
    }

    let last = Last {
        list: &list,
        todo: &todo,
        boot,
        spare,
    };
    let sent = send(board, facts, root, &missing, &last, &mut |so_far| {
        progress(so_far, total);
    });
    if let Err(error) = sent {
        let error = or_full(error, &place, need, free);
        if matches!(error, DeployError::Full { .. }) {
            // Half of an app that does not fit is of no use to the next deploy.
            let waiting = quote(&format!("{root}{WAITING}"));
            let program = format!("_td({waiting},{})", or_none(boot));
            let program = teach(board, facts, &[HELPERS, TREE, FINISH], &program);
            let _still_full = board.exec(&program);
        }
        return Err(error);
    }
    done.sent_bytes = total;
    Ok(done)
}

type Changed<'a> = (&'a RelPath, &'a Vec<u8>, String, String);

fn ask(
    board: &mut Board,
    facts: &Facts,
    root: &str,
    files: &Files,
    boot: Option<&str>,
) -> Result<Known, LinkError> {
    let mut known = Known::default();
    if !facts.sha256 {
        known.hashes = vec!["-".into(); files.len()];
    }
    let (waiting, list) = (
        quote(&format!("{root}{WAITING}")),
        quote(&format!("{root}{LIST}")),
    );
    let first = format!("{waiting},{list},{}", or_none(boot));
    let names: Vec<_> = files.iter().collect();
    let empty: &[&[(&RelPath, &Vec<u8>)]] = &[&[]];
    let parts: Vec<_> = if names.is_empty() || !facts.sha256 {
        empty.to_vec()
    } else {
        names.chunks(ASK_AT_ONCE).collect()
    };
    for (number, part) in parts.into_iter().enumerate() {
        let first = if number == 0 { &first } else { "0,0,0" };
        let folders: BTreeSet<_> = part.iter().flat_map(|(path, _)| folders_of(path)).collect();
        let folders = folders.into_iter().map(|folder| format!("{root}/{folder}"));
        let own = Some(root.to_owned()).filter(|root| !root.is_empty());
        let folders: String = own
            .into_iter()
            .chain(folders)
            .map(|folder| quote(&folder) + ",")
            .collect();
        let mut program = format!("_tq({first},[{folders}],[");
        for (path, bytes) in part {
            let path = quote(&format!("{root}/{path}"));
            let _infallible = write!(program, "({path},{}),", bytes.len());
        }
        program.push_str("])");
        let program = teach(board, facts, &[RECEIVER, HELPERS, TREE], &program);
        let answer = board.exec(&program)?;
        for line in String::from_utf8_lossy(&answer).lines() {
            match line.split_once(' ') {
                Some(("o", path)) => drop(known.ours.insert(path.to_owned())),
                Some(("b", _)) => known.begun = true,
                Some(("i", path)) => known.in_the_way.push(path.to_owned()),
                Some(("w", name)) => drop(known.waiting.insert(name.to_owned())),
                Some(("h", hash)) => known.hashes.push(hash.to_owned()),
                Some(("s", path)) => known.hidden_by.push(path.to_owned()),
                _ => {}
            }
        }
    }
    if known.hashes.len() != files.len() {
        return Err(board.unexpected(b"a list of another length"));
    }
    Ok(known)
}

/// The folders that this file lies in.
fn folders_of(path: &RelPath) -> impl Iterator<Item = &str> {
    let path = path.as_str();
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// As an argument for the board.
fn or_none(path: Option<&str>) -> String {
    path.map_or_else(|| "None".to_owned(), quote)
}

impl Known {
    /// The folders that go because files come in their place, the innermost first.
    ///
    /// # Errors
    /// [`DeployError::InTheWay`] for what is not ours to remove.
    fn folders_in_the_way(&self, root: &str, gone: &[&String]) -> Result<Vec<String>, DeployError> {
        let mut folders = Vec::new();
        for path in &self.in_the_way {
            let inside = path.strip_prefix(root).unwrap_or(path);
            let inside = inside.trim_start_matches('/');
            if let Some(folder) = inside.strip_suffix('/') {
                folders.push(folder.to_owned());
            } else if !gone.iter().any(|gone| *gone == inside) {
                return Err(DeployError::InTheWay { path: path.clone() });
            }
        }
        folders.reverse();
        Ok(folders)
    }
}

/// Lets the board end what an earlier deploy has begun: its list of what to do is not ours to change.
fn end_begun(
    board: &mut Board,
    facts: &Facts,
    root: &str,
    boot: Option<&str>,
) -> Result<(), LinkError> {
    let waiting = quote(&format!("{root}{WAITING}"));
    let mut frames = Frames::with(board, facts, &[HELPERS, TREE, FINISH])?;
    frames.exec(&format!(
        "_pend({waiting},{})\n_pgone({waiting})",
        or_none(boot)
    ))?;
    frames.end()
}

/// Room to hold until files change places, so that the folders they come to can grow; none where
/// there is plenty.
fn spare(
    system: &FileSystem,
    sizes: impl Iterator<Item = usize>,
    changed: &[Changed<'_>],
) -> Option<u64> {
    let block = system.block.max(512);
    let blocks: u64 = sizes.map(|size| (size as u64).div_ceil(block)).sum();
    let folders: BTreeSet<_> = changed
        .iter()
        .flat_map(|(path, ..)| folders_of(path))
        .collect();
    let names: usize = changed
        .iter()
        .map(|(path, ..)| path.file_name().len() + 64)
        .sum();
    // A folder of littlefs is a pair of blocks, and each of them is rewritten beside itself.
    let spare = block * (4 + 2 * folders.len() as u64) + 2 * names as u64;
    (system.free < blocks * block + 4 * spare).then_some(spare)
}

/// What the board does when all is there, in this order: the room that was held is given back, what
/// stands in the way goes, new files come, what is gone goes, the files that start the board, the list
/// of what is ours.
///
/// While ours stands for `boot`, the one to come is where the board's own waits.
fn todo(
    root: &str,
    changed: &[Changed<'_>],
    gone: &[&String],
    folders: &[String],
    boot: Option<&str>,
) -> String {
    let inside = |path: &str, folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let in_the_way = |old: &str| {
        changed
            .iter()
            .any(|(path, ..)| inside(path.as_str(), old) || inside(old, path.as_str()))
    };
    let (first, later): (Vec<_>, Vec<_>) = gone.iter().copied().partition(|path| in_the_way(path));
    let starting = |path: &str| STARTING.contains(&path);
    let mut out = String::new();
    let mut line = |kind: char, key: &str, path: &str| {
        let _infallible = match boot {
            Some(boot) if *boot == format!("{root}/{path}") => {
                writeln!(out, "{kind} {key} {root}{WAITING}/boot")
            }
            _ => writeln!(out, "{kind} {key} {root}/{path}"),
        };
    };
    line('d', "-", SPARE);
    first.iter().for_each(|path| line('d', "-", path));
    folders.iter().for_each(|path| line('d', "-", path));
    for start in [false, true] {
        for (path, _, _, key) in changed {
            if starting(path.as_str()) == start {
                line('r', key, path.as_str());
            }
        }
        if !start {
            later.iter().for_each(|path| line('d', "-", path));
        }
    }
    line('r', "list", &LIST[1..]);
    out
}

/// What is written when all files wait.
struct Last<'a> {
    list: &'a str,
    todo: &'a str,
    /// The `boot.py` that ours stands for meanwhile.
    boot: Option<&'a str>,
    /// Bytes that are held until then.
    spare: Option<u64>,
}

/// The file that the board runs first, when it runs it from this file system; another one is mounted
/// by the user's program, after that.
fn boot_path(system: &FileSystem) -> Option<&'static str> {
    match system.path.as_str() {
        "/" => Some("/boot.py"),
        "/flash" => Some("/flash/boot.py"),
        _ => None,
    }
}

fn send(
    board: &mut Board,
    facts: &Facts,
    root: &str,
    missing: &[&Changed<'_>],
    last: &Last<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LinkError> {
    let waiting = format!("{root}{WAITING}");
    let mut so_far = 0;
    let mut frames = Frames::with(board, facts, &[HELPERS, TREE, FINISH])?;
    for (_, bytes, hash, key) in missing {
        let temporary = quote(&format!("{waiting}/.{key}"));
        frames.exec(&format!("_pn({temporary})"))?;
        frames.data(bytes, &mut |count| {
            so_far += count as u64;
            progress(so_far);
        })?;
        let hash = if facts.sha256 { hash } else { "" };
        // Only what was read back and found whole gets the name that the next deploy looks for.
        let name = quote(&format!("{waiting}/{key}"));
        frames.exec(&format!("_pc({temporary},{name},'{hash}')"))?;
    }
    let quoted = quote(&waiting);
    let start = last.boot.map(|boot| {
        format!(
            "{STARTS}{UNSTOPPED}{FINISH}_pend({quoted},{})\n_pgone({quoted})\nimport machine\nmachine.reset()\n",
            quote(boot)
        )
    });
    let texts = [
        ("list", Some(last.list)),
        ("todo", Some(last.todo)),
        ("start", start.as_deref()),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let path = quote(&format!("{waiting}/{name}"));
        frames.exec(&format!("_pn({path})"))?;
        frames.data(text.as_bytes(), &mut |_| {})?;
        frames.exec(&format!("_pc({path},{path},'')"))?;
    }
    if let Some(spare) = last.spare {
        frames.exec(&format!("_ts({quoted},{spare})"))?;
    }
    let boot = or_none(last.boot);
    if last.boot.is_some() {
        frames.exec(&format!("_tb({quoted},{boot})"))?;
    }
    frames.exec(&format!("_pend({quoted},{boot})\n_pgone({quoted})"))?;
    frames.end()
}

/// Refuses names that the board's file system cannot hold, before a byte is sent.
fn check_names(files: &Files, system: Option<&FileSystem>) -> Result<(), DeployError> {
    let fat = system.is_some_and(|system| system.kind == "VfsFat");
    let longest = system.map_or(255, |system| system.name_max);
    let wrong = |path: &RelPath, why: String| DeployError::Name {
        path: path.to_string(),
        why,
    };
    let mut folded: std::collections::BTreeMap<String, &RelPath> = Default::default();
    for path in files.keys() {
        for part in path.as_str().split('/') {
            if longest > 0 && part.len() as u64 > longest {
                return Err(wrong(
                    path,
                    format!("names have at most {longest} bytes there"),
                ));
            }
            if fat
                && (part.contains(['"', '*', ':', '<', '>', '?', '|', '\\'])
                    || part.ends_with(['.', ' ']))
            {
                return Err(wrong(path, "FAT does not take such names".into()));
            }
        }
        if fat && let Some(other) = folded.insert(path.as_str().to_lowercase(), path) {
            return Err(wrong(
                path,
                format!("FAT takes it for the same name as `{other}`"),
            ));
        }
        let own = [WAITING, LIST].map(|own| &own[1..]);
        let first = path.as_str().split('/').next().unwrap_or_default();
        if own.contains(&first) {
            return Err(wrong(path, "the name is used by the deploy itself".into()));
        }
    }
    Ok(())
}
