//! Who has a port open: lock files and every process's open files, as far as we may look.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A process that has a port open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its program, such as `mpremote`.
    pub program: String,
}

/// The processes, other than this one, that have `path` open: those that have locked it, if any has.
/// Those of other users are seen only by root.
pub fn holders(path: &Path) -> Vec<Holder> {
    let Ok(device) = path.canonicalize() else {
        return Vec::new();
    };
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own);
    let mut found: Vec<_> = pids
        .filter_map(|pid| open_in(pid, &device).map(|lock| (pid, lock)))
        .collect();
    // Where somebody has locked it, the others do not matter.
    if found.iter().any(|(_, lock)| *lock == Lock::Held) {
        found.retain(|(_, lock)| *lock == Lock::Held);
    }
    found.sort_by_key(|(pid, _)| *pid);
    let named = found.into_iter().map(|(pid, _)| Holder {
        pid,
        program: program(pid),
    });
    named.collect()
}

/// Whether a process that has a port open has locked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    None,
    Held,
}

/// How the process has the port open, if it has.
fn open_in(pid: u32, device: &Path) -> Option<Lock> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let ours = files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target == device));
    let lock = ours.map(|file| {
        let number = file.file_name();
        let info = fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(number));
        match info.is_ok_and(|info| info.contains("FLOCK")) {
            true => Lock::Held,
            false => Lock::None,
        }
    });
    lock.max()
}

/// The program's name: for interpreters, the script they run.
fn program(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let name = |word: &String| {
        Path::new(word)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let first = words.first().and_then(name).unwrap_or_default();
    let script = words.iter().skip(1).find(|word| !word.starts_with('-'));
    match script.and_then(name) {
        Some(script) if first.starts_with("python") && !script.is_empty() => script,
        _ if first.is_empty() => "a program of another user".into(),
        _ => first,
    }
}

/// The living holder that a UUCP lock file names (minicom, picocom, screen's helpers write them).
pub(super) fn lock_file(path: &Path) -> Option<Holder> {
    let name = path.file_name()?.to_str()?;
    let file = PathBuf::from("/var/lock").join(format!("LCK..{name}"));
    let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let alive = Path::new("/proc").join(pid.to_string()).exists();
    (alive && pid != std::process::id()).then(|| Holder {
        pid,
        program: program(pid),
    })
}

/// The group that may open `path`, such as `dialout`.
pub(super) fn group_of(path: &Path) -> String {
    let gid = fs::metadata(path).map(|data| data.gid().to_string());
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let line = gid.ok().and_then(|gid| {
        groups
            .lines()
            .find(|line| line.split(':').nth(2) == Some(gid.as_str()))
    });
    line.and_then(|line| line.split(':').next())
        .unwrap_or("dialout")
        .to_owned()
}
