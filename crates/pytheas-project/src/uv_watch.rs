//! What uv unpacks is bounded: uv itself takes any source distribution or wheel, however much comes
//! out of it, and would fill the disk.
//!
//! uv unpacks into folders `.tmp…` of its cache and renames them when they are whole. Which ones, and
//! where its cache is, `/proc/PID/fd` tells: the files that it has open. Each of these folders is measured while uv
//! runs; the one that grows over the limit ends uv, and is removed. The package is what the folder
//! holds (`NAME-VERSION` of a source distribution), or the wheel that uv has open. What uv reads into
//! memory (a wheel's `METADATA` of gigabytes) is bounded as well.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Output},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::uv_builds::Builds;

/// How often the folders are measured; longer where that itself takes long.
const INTERVAL: Duration = Duration::from_millis(100);

/// How much one archive may unpack to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a source distribution.
    pub(crate) source_bytes: u64,
    /// Bytes of anything else (wheels; environments for builds).
    pub(crate) other_bytes: u64,
    /// Files and folders of either.
    pub(crate) entries: u64,
    /// Bytes that uv itself may have in memory.
    pub(crate) memory_bytes: u64,
}

impl Default for Limits {
    /// As Pytheas' own unpacking has them.
    fn default() -> Self {
        Self {
            source_bytes: 2 << 30,
            other_bytes: 8 << 30,
            entries: 200_000,
            // Large resolutions take some hundred megabytes.
            memory_bytes: 3 << 30,
        }
    }
}

/// An archive that holds too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TooLarge {
    /// `NAME-VERSION`, as far as it is known.
    pub(crate) package: String,
    /// More than this came out of it, in words.
    pub(crate) limit: String,
}

/// Waits for uv, which is ended when something that it unpacks grows over the limits.
/// Builds that take long are named.
pub(crate) fn wait(
    child: Child,
    limits: Limits,
    builds: Builds,
) -> io::Result<(Output, Option<TooLarge>)> {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else {
        return Ok((child.wait_with_output()?, None));
    };
    // A kernel without pidfds (before 5.3) has uv unwatched.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok((child.wait_with_output()?, None));
    };
    let (ended, end) = channel();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || watch(pid, &process, &end, limits, builds));
        let output = child.wait_with_output();
        let _watcher_may_be_gone = ended.send(());
        let found = watcher.join().unwrap_or_default();
        if let Some((Some(folder), _)) = &found {
            let _what_is_left_is_in_the_cache = fs::remove_dir_all(folder);
        }
        Ok((output?, found.map(|(_, too_large)| too_large)))
    })
}

/// Measures until uv ended, or until it had to be ended.
fn watch(
    pid: Pid,
    process: &OwnedFd,
    end: &Receiver<()>,
    limits: Limits,
    mut builds: Builds,
) -> Option<(Option<PathBuf>, TooLarge)> {
    let files = PathBuf::from(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    let mut pause = INTERVAL;
    loop {
        match end.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        builds.look();
        let begun = Instant::now();
        let open = fs::read_dir(&files).into_iter().flatten().flatten();
        let open: Vec<PathBuf> = open
            .filter_map(|file| fs::read_link(file.path()).ok())
            .collect();
        if let Some(cache) = cache_of(&open) {
            folders.extend(open.iter().filter_map(|file| temporary_folder(file, cache)));
        }
        folders.retain(|folder| folder.is_dir());
        for folder in &folders {
            let is_source = folder.parent().and_then(Path::file_name);
            let is_source =
                is_source.is_some_and(|name| name.to_string_lossy().starts_with("sdists-"));
            let bytes = if is_source {
                limits.source_bytes
            } else {
                limits.other_bytes
            };
            let Some(limit) = exceeded(folder, bytes, limits.entries) else {
                continue;
            };
            let package = package(folder, &open);
            let found = (Some(folder.clone()), TooLarge { package, limit });
            return ended(process).then_some(found);
        }
        if memory_of(pid) > limits.memory_bytes {
            let package = open_wheel(&open).unwrap_or_else(|| "a package's metadata".to_owned());
            let limit = format!("{} in memory", in_words(limits.memory_bytes));
            return ended(process).then_some((None, TooLarge { package, limit }));
        }
        pause = INTERVAL.max(begun.elapsed() * 10);
    }
}

/// Ends uv; false when it has ended by itself.
fn ended(process: &OwnedFd) -> bool {
    let sent = pidfd_send_signal(process, Signal::KILL);
    if let Err(error) = &sent {
        tracing::debug!(%error, "uv ended by itself");
    }
    sent.is_ok()
}

/// The bytes that a process has in memory (`VmRSS`); 0 when it has ended.
fn memory_of(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) << 10
}

/// The wheel that is open, as `NAME-VERSION`.
fn open_wheel(files: &[PathBuf]) -> Option<String> {
    let mut names = files.iter().filter_map(|file| file.file_name()?.to_str());
    let wheel = names.find_map(|name| name.strip_suffix(".whl"))?;
    let mut parts = wheel.splitn(3, '-');
    Some(format!("{}-{}", parts.next()?, parts.next()?))
}

fn in_words(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MiB", bytes >> 20),
        gibibytes => format!("{gibibytes} GiB"),
    }
}

/// uv's cache among the files that it has open: it holds `CACHE/.lock`. The outermost, because an
/// archive may bring files of these names as well.
fn cache_of(files: &[PathBuf]) -> Option<&Path> {
    files
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name == ".lock"))
        .filter_map(|file| file.parent())
        .filter(|folder| folder.join("CACHEDIR.TAG").is_file())
        .min_by_key(|folder| folder.components().count())
}

/// The temporary folder in uv's cache that the file lies in: in the cache itself, or in one of the
/// parts that it has for each kind (`sdists-v10`).
fn temporary_folder(file: &Path, cache: &Path) -> Option<PathBuf> {
    let mut parts = file.strip_prefix(cache).ok()?.components();
    let mut folder = cache.to_owned();
    for _ in 0..2 {
        let name = parts.next()?;
        folder.push(name);
        if name.as_os_str().to_string_lossy().starts_with(".tmp") {
            // The file lies in it, and is not it.
            return parts.next().map(|_| folder);
        }
    }
    None
}

/// Which limit the folder is over, in words.
fn exceeded(folder: &Path, bytes: u64, entries: u64) -> Option<String> {
    let (mut size, mut count) = (0_u64, 0_u64);
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            count += 1;
            // What vanishes meanwhile is not there.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => size = size.saturating_add(meta.len()),
                Err(_) => {}
            }
            if size > bytes {
                return Some(in_words(bytes));
            }
            if count > entries {
                return Some(format!("{entries} files"));
            }
        }
    }
    None
}

/// What lies in the folder: the `.dist-info` of a wheel, else the wheel among the open files, else the
/// first name (a source distribution has one top folder).
fn package(folder: &Path, open: &[PathBuf]) -> String {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let info = names
        .iter()
        .find_map(|name| name.strip_suffix(".dist-info"));
    let found = info.map(str::to_owned).or_else(|| open_wheel(open));
    found
        .or_else(|| names.first().cloned())
        .unwrap_or_else(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::{Connectivity, Environment, Uv, uv::UvCallError, uv::UvFailure};

    #[test]
    fn only_temporary_folders_in_uvs_own_cache_are_measured() {
        let cache = Path::new("/.tmpT/uv");
        let of = |path: &str| temporary_folder(Path::new(path), cache);
        for inside in ["/.tmpT/uv/.tmpA", "/.tmpT/uv/sdists-v10/.tmpB"] {
            assert_eq!(of(&format!("{inside}/x-1/.tmpC/z")), Some(inside.into()));
            assert_eq!(of(inside), None);
        }
        assert_eq!(of("/.tmpT/uv/sdists-v10/index/.tmpD/x"), None);
        assert_eq!(of("/.tmpT/other"), None);
        assert_eq!(of("socket:[7]"), None);

        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join(".tmpA/bomb");
        fs::create_dir_all(&inner).unwrap();
        for dir in [root.path(), &inner] {
            pytheas_durable::replace(&dir.join("CACHEDIR.TAG"), b"").unwrap();
        }
        let files = [inner.join(".lock"), root.path().join(".lock")];
        assert_eq!(cache_of(&files), Some(root.path()));
        assert_eq!(cache_of(&[root.path().join("x/.lock")]), None);
    }

    #[test]
    fn a_process_that_writes_elsewhere_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "exec 3>big; head -c 5000000 /dev/zero >&3; sleep 0.5; echo done",
            ])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let limits = Limits {
            source_bytes: 1,
            other_bytes: 1,
            entries: 1,
            memory_bytes: u64::MAX,
        };
        let (output, found) = wait(command.spawn().unwrap(), limits, Builds::of(None)).unwrap();
        assert_eq!((&output.stdout[..], found), (&b"done\n"[..], None));
    }

    /// A source distribution that unpacks to `size` zeros in `files` files; uv must build it to know
    /// its version.
    fn bomb(dir: &Path, size: u64, files: u64) {
        let file = fs::File::create(dir.join("bomb-1.0.tar.gz")).unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        let mut add = |name: &str, content: &mut dyn io::Read, size| {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, name, content).unwrap();
        };
        for (name, text) in [
            (
                "pyproject.toml",
                "[project]\nname = 'bomb'\ndynamic = ['version']\n",
            ),
            (
                "setup.py",
                "from setuptools import setup\nsetup(version='1.0')\n",
            ),
        ] {
            add(
                &format!("bomb-1.0/{name}"),
                &mut text.as_bytes(),
                text.len() as u64,
            );
        }
        for number in 0..files {
            let mut zeros = io::Read::take(io::repeat(0), size);
            add(&format!("bomb-1.0/zeros{number}"), &mut zeros, size);
        }
        archive.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn a_process_that_takes_too_much_memory_is_ended_and_the_wheel_it_reads_named() {
        let dir = tempfile::tempdir().unwrap();
        pytheas_durable::replace(&dir.path().join("big-1.0-py3-none-any.whl"), b"").unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 3<big-1.0-py3-none-any.whl; exec sleep 600"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let limits = Limits {
            memory_bytes: 1,
            ..Limits::default()
        };
        let (_, found) = wait(command.spawn().unwrap(), limits, Builds::of(None)).unwrap();
        // The shell's own beginning may be measured before it has opened the file.
        let expected = ["big-1.0", "a package's metadata"].map(|package| {
            Some(TooLarge {
                package: package.to_owned(),
                limit: "0 MiB in memory".to_owned(),
            })
        });
        assert!(expected.contains(&found), "{found:?}");
    }

    #[test]
    fn a_source_distribution_that_unpacks_to_too_much_ends_uv_and_is_named() {
        let environment = Environment::current();
        let Ok(mut uv) = Uv::find(&environment, Connectivity::Online, &|_| {}) else {
            testkit::skip("uv cannot be had");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let call = |uv: &Uv| {
            let mut command = uv.command();
            command
                .args(["pip", "compile", "-", "--no-index", "--find-links"])
                .arg(dir.path())
                .env("UV_CACHE_DIR", &cache);
            uv.run_with_input(command, "bomb\n")
        };
        for (size, files, limits, expected) in [
            (
                1 << 30,
                1,
                Limits {
                    source_bytes: 20 << 20,
                    ..Limits::default()
                },
                "`bomb-1.0` unpacks to more than 20 MiB",
            ),
            (
                100,
                100_000,
                Limits {
                    entries: 1000,
                    ..Limits::default()
                },
                "`bomb-1.0` unpacks to more than 1000 files",
            ),
        ] {
            bomb(dir.path(), size, files);
            uv.limits = limits;
            let UvCallError::Failed(failure, said) = call(&uv).unwrap_err() else {
                panic!("uv was not started");
            };
            assert_eq!(failure, UvFailure::TooLarge, "{said}");
            assert!(said.0.starts_with(expected), "{said}");
            let left = fs::read_dir(cache.join("sdists-v10")).into_iter().flatten();
            let left = left
                .flatten()
                .filter(|entry| entry.path().join("bomb-1.0").exists());
            assert_eq!(left.count(), 0);
        }
    }
}
