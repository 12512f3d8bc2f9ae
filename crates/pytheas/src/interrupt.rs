//! Ctrl-C, SIGTERM and SIGHUP in the midst of work on a project: what was started ends, what is half
//! made goes, and then this process dies by the signal, as its shell expects.
//!
//! Threads that copy, pack or wait cannot be stopped from within, and would make anew what is
//! removed under them. So the process replaces itself (`exec`: same id, same children, no other
//! thread) by one that only puts in order, given the paths as arguments. Meanwhile a second signal of the
//! same second is [`held`] back.

mod held;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use pytheas_project::scratch::{self, Scratch};
use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The name (`argv[0]`) of the process that puts in order; then the signal's number and paths.
const NAME: &str = "pytheas-after-signal";
/// How the names of files begin that `pytheas_durable` is writing.
const HALF: &[u8] = b".replacing-";
/// How long programs have to end by themselves.
const GRACE: Duration = Duration::from_secs(3);
/// How long is waited for those that were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds the folder of temporary files; dropped at the end of a verb.
#[derive(Debug)]
pub(crate) struct Watch {
    _temporary: Option<Scratch>,
}

/// From now on signals end this process in order, and its temporary files lie in a folder of its own.
pub(crate) fn watch() -> Watch {
    // Without one, whoever first needs a temporary file says why there is none.
    let temporary = scratch::folder(&std::env::temp_dir(), "pytheas-work-").ok();
    if let Some(folder) = &temporary {
        let _only_the_first_counts = tempfile::env::override_temp_dir(folder.path());
    }
    // `nohup` and shells without job control have some ignored, which is meant for us, too.
    let ignored = ignored_signals();
    let wanted = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) {
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                replace_process(signal);
            }
        });
    }
    Watch {
        _temporary: temporary,
    }
}

/// The mask of signals that are ignored, as the kernel says.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

fn replace_process(signal: i32) {
    held::hold();
    let mut paths = scratch::made();
    paths.extend(half_written());
    // Orphans of what ends now become ours.
    let _since_linux_3_4 = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let failed = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg(signal.to_string())
        .args(&paths)
        .exec();
    tracing::debug!(error = %failed, "cannot start anew to put in order");
    put_in_order(signal, &paths);
    // The other threads would go on without their folders, and nothing would end them any more.
    std::process::exit(128 + signal);
}

/// Files that are open and have a name which says that they are not complete.
fn half_written() -> Vec<PathBuf> {
    let open = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|file| fs::read_link(file.path()).ok())
        .filter(|path| {
            let name = path.file_name().map(OsStr::as_encoded_bytes);
            path.is_absolute() && name.is_some_and(|name| name.starts_with(HALF))
        })
        .collect()
}

/// The whole run of a process that [`replace_process`] has started; of others, nothing.
pub(crate) fn is_to_put_in_order() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let signal = arguments.next()?.to_str()?.parse().ok()?;
    let paths: Vec<PathBuf> = arguments.map(|path: OsString| path.into()).collect();
    put_in_order(signal, &paths);
    Some(ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)))
}

fn put_in_order(signal: i32, paths: &[PathBuf]) {
    held::let_through_later();
    end_children(signal);
    for path in paths {
        let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        let _gone_already = if is_folder {
            pytheas_durable::remove_tree(path)
        } else {
            fs::remove_file(path)
        };
    }
    held::let_through();
    if let Some(signal) = named(signal) {
        // Not an exit code: a shell that runs a loop ends it only when the signal was what killed.
        let _ended = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

fn named(signal: i32) -> Option<Signal> {
    match signal {
        SIGHUP => Some(Signal::HUP),
        SIGINT => Some(Signal::INT),
        SIGTERM => Some(Signal::TERM),
        _ => None,
    }
}

/// Ends all that this process has started, and what that has started.
fn end_children(signal: i32) {
    let told = if signal == SIGINT && is_in_foreground() {
        None // the terminal has told them
    } else {
        named(signal)
    };
    for process in descendants() {
        if let Some(signal) = told {
            let _gone = rustix::process::kill_process(process, signal);
        }
    }
    let start = Instant::now();
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let left = descendants();
        let waited = start.elapsed();
        if left.is_empty() || waited > PATIENCE {
            return;
        }
        if waited > GRACE {
            for process in left {
                let _gone = rustix::process::kill_process(process, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether ctrl-C on the terminal reaches this process and its children alike.
fn is_in_foreground() -> bool {
    let terminal = fs::File::open("/dev/tty");
    terminal
        .is_ok_and(|tty| rustix::termios::tcgetpgrp(tty).ok() == Some(rustix::process::getpgrp()))
}

/// All processes below this one.
fn descendants() -> Vec<Pid> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().parse().ok();
        if let (Some(id), Some(parent)) = (id, parent_of(&entry.path())) {
            parents.push((id, parent));
        }
    }
    let mut found = vec![rustix::process::getpid().as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    found
        .into_iter()
        .skip(1)
        .filter_map(Pid::from_raw)
        .collect()
}

/// The parent in `/proc/ID/stat`: the second word behind the name, which may hold anything.
fn parent_of(process: &Path) -> Option<i32> {
    let stat = fs::read(process.join("stat")).ok()?;
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = String::from_utf8_lossy(stat.get(behind + 1..)?).into_owned();
    rest.split_whitespace().nth(1)?.parse().ok()
}
