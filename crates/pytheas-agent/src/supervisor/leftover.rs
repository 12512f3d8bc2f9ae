//! Ends what an agent that crashed left running.
//!
//! `app.pid` names the app's process and when it started (clock ticks since boot, from
//! `/proc/PID/stat`), so a number that the kernel has given to another process since is not
//! mistaken for the app. What it started, daemons in groups and sessions of their own included, is
//! found by the environment the agent gave it.

use std::{fs, io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tracing::warn;

use crate::paths::StateDir;

/// Set in the app's environment; its value is the `app.pid` file's path.
pub(super) const MARK: &str = "PYTHEAS_APP_PID_FILE";

/// Notes the app's process.
pub(super) fn note(path: &Path, pid: u32) -> io::Result<()> {
    let started = start_ticks(pid).unwrap_or(0);
    pytheas_durable::replace(path, format!("{pid} {started}\n").as_bytes())
}

/// Ends what is left of the app noted in `path`, and of what it started, and waits until it is
/// gone.
pub(super) fn end(path: &Path) {
    // Unreadable or torn: what carries the mark is found without it.
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let app = match (numbers.next(), numbers.next()) {
        (Some(Ok(pid)), Some(Ok(started))) => u32::try_from(pid).ok().zip(Some(started)),
        _ => None,
    };
    let mark = format!("{MARK}={}", path.display());
    for _ in 0..100 {
        let left = members(app, &mark);
        if left.is_empty() {
            break;
        }
        for member in left {
            warn!(
                pid = member,
                "ending process {member}, left over by the app"
            );
            if let Some(member) = Pid::from_raw(member.cast_signed()) {
                let _gone_already = kill_process(member, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that stays does no harm: the app's start is noted in it.
    let _gone_already = fs::remove_file(path);
}

/// Ends what is left of the app of `dir`.
pub(crate) fn end_of(dir: &StateDir) {
    end(&dir.app_pid());
}

/// All processes with the mark of the `app.pid` file `path`.
pub(super) fn marked(path: &Path) -> Vec<u32> {
    members(None, &format!("{MARK}={}", path.display()))
}

/// Processes that belong to the app: itself, by number and start, and all with its mark.
fn members(app: Option<(u32, u64)>, mark: &str) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&process: &u32| {
            let Some(ticks) = start_ticks(process).filter(|_| process != std::process::id()) else {
                return false;
            };
            app == Some((process, ticks))
                || fs::read(format!("/proc/{process}/environ"))
                    .is_ok_and(|env| env.split(|b| *b == 0).any(|var| var == mark.as_bytes()))
        })
        .collect()
}

/// When a process that has not ended was started, from `/proc/PID/stat` (proc(5)).
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;

    #[test]
    fn the_app_and_its_children_are_ended_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.pid");
        let spawn = |mark: &Path| {
            Command::new("sh")
                .args(["-c", "sleep 1000 & setsid sleep 1000 & echo started; wait"])
                .env(MARK, mark)
                .process_group(0)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (mut ours, mut other) = (spawn(&path), spawn(Path::new("/elsewhere")));
        for child in [&mut ours, &mut other] {
            io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 8]).unwrap();
        }
        note(&path, ours.id()).unwrap();
        end(&path);
        assert!(!path.exists());
        assert_eq!(ours.wait().unwrap().code(), None, "it was killed");
        assert!(members(None, &format!("{MARK}={}", path.display())).is_empty());
        assert_eq!(other.try_wait().unwrap(), None);

        // The same number, but started at another time: somebody else's process.
        pytheas_durable::replace(&path, format!("{} 1\n", other.id()).as_bytes()).unwrap();
        end(&path);
        assert_eq!(other.try_wait().unwrap(), None);

        // A damaged note is no reason to leave anything behind, nor not to start.
        pytheas_durable::replace(&path, b"\xff\xfe").unwrap();
        end(&path);
        assert!(!path.exists());
        end(Path::new("/elsewhere"));
        assert_eq!(other.wait().unwrap().code(), None, "found by its mark");
    }
}
