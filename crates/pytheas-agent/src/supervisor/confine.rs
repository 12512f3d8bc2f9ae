//! What the app may not: run as somebody else than it should, write to its own code, use more than
//! its share, do to the kernel what no app has to.
//!
//! Everything is prepared before the app's process begins and put in force by it between fork and
//! exec. What this kernel does not have is left out and said ([`Guard`]); only the wrong user is a
//! reason not to start.

mod account;
mod landlock;
mod limits;
mod seccomp;

use std::{
    io::{self, PipeReader, PipeWriter, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat},
    path::Arg,
    process::{Resource, Rlimit, setrlimit},
};
use serde::{Deserialize, Serialize};

use self::{account::Account, landlock::Ruleset, limits::Cgroup};
use crate::paths::StateDir;

/// Folders that every app may write to, beside its data.
const WRITABLE: [&str; 7] = [
    "/tmp",
    "/var/tmp",
    "/dev",
    "/proc",
    "/sys",
    "/run/user",
    "/run/lock", // whose serial port is in use (Filesystem Hierarchy Standard, `/var/lock`)
];
/// Where programs keep things below the agent's home when they are told so; without them they
/// look below `HOME`.
const FOLDERS_OF_A_HOME: [&str; 4] = [
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
];

/// How an app is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Confinement {
    /// Run the app as this user (name or number) instead of the agent's
    #[arg(long, value_name = "USER", env = "PYTHEAS_APP_USER")]
    pub app_user: Option<String>,
    /// Most memory the app may use, e.g. `200 MB`
    #[arg(long, value_name = "SIZE", env = "PYTHEAS_APP_MEMORY", value_parser = parse_size)]
    pub app_memory: Option<u64>,
    /// Most processor time the app may use, in percent of one processor, e.g. `50%`
    #[arg(long, value_name = "PERCENT", env = "PYTHEAS_APP_CPU", value_parser = parse_percent)]
    pub app_cpu: Option<u32>,
    /// A further folder or file the app may write to; may be given several times
    #[arg(
        long,
        value_name = "PATH",
        env = "PYTHEAS_APP_WRITES",
        value_delimiter = ':'
    )]
    pub app_writes: Vec<PathBuf>,
    /// Do not confine the app by no-new-privileges, seccomp and Landlock
    #[arg(long, env = "PYTHEAS_NO_SANDBOX", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_sandbox: bool,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
    {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("a number with a unit is wanted: `200 MB`, `64 MiB`, `1 GB`".into()),
    }
}

fn parse_percent(text: &str) -> Result<u32, String> {
    match text.trim().trim_end_matches('%').trim_end().parse() {
        Ok(percent @ 1..=10_000) => Ok(percent),
        _ => Err("a percentage is wanted: `50%`; `200%` is two whole processors".into()),
    }
}

/// One protection, and whether it holds for the app that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// `user`, `no-new-privileges`, `seccomp`, `landlock`, `memory` or `cpu`.
    pub name: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// Which user, how much; or why it is not.
    pub detail: String,
}

/// What the child says it has put in force, one bit each.
const NO_NEW_PRIVILEGES: u8 = 1;
const LANDLOCK: u8 = 1 << 1;
const SECCOMP: u8 = 1 << 2;
const MEMORY: u8 = 1 << 3;
const CGROUP: u8 = 1 << 4;

/// Everything made ready for one start of the app.
pub(super) struct Prepared {
    account: Option<Account>,
    sandbox: bool,
    landlock: Result<Ruleset, io::Error>,
    seccomp: Option<Vec<libc::sock_filter>>,
    memory_bytes: Option<u64>,
    cpu_percent: Option<u32>,
    cgroup: Option<io::Result<Cgroup>>,
}

impl Prepared {
    /// Makes ready what `settings` want for the app of the agent in `dir`.
    ///
    /// # Errors
    /// When the user is not there, this agent may not become it, or the data cannot be given to it.
    pub(super) fn new(settings: &Confinement, dir: &StateDir) -> io::Result<Self> {
        let account = settings
            .app_user
            .as_deref()
            .filter(|user| !user.is_empty()) // an empty variable
            .map(Account::find)
            .transpose()?;
        let own = rustix::process::geteuid();
        let account = account.filter(|account| account.uid != own.as_raw());
        if let Some(account) = &account {
            if !own.is_root() {
                let text = format!("only root can start the app as `{}`", account.name);
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            give(CWD, dir.data(), account)?;
            let _there_may_be_none =
                std::os::unix::fs::chown(dir.config_file(), Some(account.uid), None);
            let _abstract_sockets_have_no_owner =
                std::os::unix::fs::chown(dir.notify_socket(), Some(account.uid), None);
        }
        let sandbox = !settings.no_sandbox;
        let data = dir.data();
        let writable = WRITABLE.iter().map(Path::new).chain([data.as_path()]);
        let writable = writable.chain(
            settings
                .app_writes
                .iter()
                .map(PathBuf::as_path)
                .filter(|path| !path.as_os_str().is_empty()),
        );
        let limited = settings.app_memory.is_some() || settings.app_cpu.is_some();
        Ok(Self {
            account,
            sandbox,
            landlock: match sandbox {
                true => Ruleset::new(writable),
                false => Err(io::Error::other("turned off")),
            },
            seccomp: seccomp::filter().filter(|_| sandbox),
            memory_bytes: settings.app_memory,
            cpu_percent: settings.app_cpu,
            cgroup: limited.then(|| Cgroup::make(settings.app_memory, settings.app_cpu)),
        })
    }

    /// Lets `command` be confined before it becomes the app.
    ///
    /// # Errors
    /// When there is no pipe for the child's word on it.
    pub(super) fn confine(self, command: &mut Command, data: &Path) -> io::Result<Confined> {
        let (told, teller) = io::pipe()?;
        if let Some(account) = &self.account {
            command
                .env("USER", &account.name)
                .env("LOGNAME", &account.name);
        }
        if self.sandbox || self.account.is_some() {
            command.env("HOME", data); // the only one it may write to
            for name in FOLDERS_OF_A_HOME {
                command.env_remove(name);
            }
        }
        let guards = self.guards();
        let memory_by_cgroup = matches!(&self.cgroup, Some(Ok(cgroup)) if cgroup.memory);
        let data_limit = self.memory_bytes.filter(|_| !memory_by_cgroup);
        in_the_child(command, self, data_limit, teller);
        Ok(Confined { told, guards })
    }

    /// The protections and the bit by which the child tells that each is in force.
    fn guards(&self) -> Vec<(u8, Guard)> {
        let guard = |name: &str, detail: String| Guard {
            name: name.into(),
            in_force: false,
            detail,
        };
        let mut guards = Vec::new();
        if let Some(account) = &self.account {
            let detail = format!("{} ({})", account.name, account.uid);
            guards.push((0, guard("user", detail)));
        }
        let missing = if self.sandbox {
            "the kernel refuses it"
        } else {
            "turned off"
        };
        guards.push((
            NO_NEW_PRIVILEGES,
            guard("no-new-privileges", missing.into()),
        ));
        guards.push((SECCOMP, guard("seccomp", missing.into())));
        let landlock = match &self.landlock {
            Ok(_) => "the kernel refuses it".to_owned(),
            Err(error) if self.sandbox => match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EOPNOTSUPP) => format!("this kernel has none ({error})"),
                _ => format!("its rules cannot be made: {error}"),
            },
            Err(error) => error.to_string(),
        };
        guards.push((LANDLOCK, guard("landlock", landlock)));
        let why_no_cgroup = match &self.cgroup {
            Some(Err(error)) => error.to_string(),
            _ => "its cgroup has no controller for it".into(),
        };
        let by = |which: fn(&Cgroup) -> bool| matches!(&self.cgroup, Some(Ok(c)) if which(c));
        if let Some(bytes) = self.memory_bytes {
            let (bit, detail) = if by(|cgroup| cgroup.memory) {
                (CGROUP, format!("{bytes} bytes, by its cgroup"))
            } else {
                (
                    MEMORY,
                    format!("{bytes} bytes of data in each process ({why_no_cgroup})"),
                )
            };
            guards.push((bit, guard("memory", detail)));
        }
        if let Some(percent) = self.cpu_percent {
            let (bit, detail) = if by(|cgroup| cgroup.cpu) {
                (CGROUP, format!("{percent} % of one processor"))
            } else {
                (u8::MAX, why_no_cgroup)
            };
            guards.push((bit, guard("cpu", detail)));
        }
        guards
    }
}

/// What is known once the app was started.
pub(super) struct Confined {
    told: PipeReader,
    guards: Vec<(u8, Guard)>,
}

impl Confined {
    /// Which protections are in force, by the child's own word; called after it became the app.
    pub(super) fn guards(mut self) -> Vec<Guard> {
        let mut word = [0];
        // The writing ends are closed at exec: there is a word, or an end.
        if !matches!(self.told.read(&mut word), Ok(1)) {
            word = [0];
        }
        self.guards
            .into_iter()
            .map(|(bit, mut guard)| {
                // No bit: without it the app would not have been started.
                guard.in_force = bit != u8::MAX && word[0] & bit == bit;
                let sandbox = NO_NEW_PRIVILEGES | SECCOMP | LANDLOCK;
                if guard.in_force && bit & sandbox != 0 {
                    guard.detail = "in force".into();
                }
                guard
            })
            .collect()
    }
}

/// Gives the data to the app's user; what is in a folder of the user's was given before, or made
/// by the app. A folder is given last: begun and cut, it is begun again.
///
/// Another user's process may be left that changes it meanwhile: what is given is what was looked
/// at, and no link is followed.
fn give(dir: BorrowedFd<'_>, name: impl Arg, account: &Account) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(dir, name, flags, Mode::empty())?;
    let metadata = fstat(&found)?;
    if metadata.st_uid == account.uid {
        return Ok(());
    }
    if FileType::from_raw_mode(metadata.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&found, ".", flags, Mode::empty())?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                give(folder.as_fd(), entry.file_name(), account)?;
            }
        }
    } else if metadata.st_nlink > 1 {
        return Ok(()); // known by another name somewhere else, it may be somebody else's
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let itself = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    Ok(chownat(&found, "", Some(uid), Some(gid), itself)?)
}

/// Puts everything in force between fork and exec.
#[expect(
    unsafe_code,
    reason = "a user, limits and filters of its own can only be taken on by the child itself"
)]
fn in_the_child(
    command: &mut Command,
    prepared: Prepared,
    data_limit: Option<u64>,
    teller: PipeWriter,
) {
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes
    // system calls on memory that was filled before the fork, allocates nothing, takes no lock,
    // and builds errors from numbers only.
    unsafe {
        command.pre_exec(move || {
            let mut word = 0;
            if let Some(Ok(cgroup)) = &prepared.cgroup
                && rustix::io::write(&cgroup.procs, b"0").is_ok()
            {
                word |= CGROUP;
            }
            if data_limit.is_some_and(limit_data) {
                word |= MEMORY;
            }
            if let Some(account) = &prepared.account {
                become_user(account)?;
            }
            if prepared.sandbox {
                if no_new_privileges() {
                    word |= NO_NEW_PRIVILEGES;
                }
                if prepared.landlock.as_ref().is_ok_and(Ruleset::enforce) {
                    word |= LANDLOCK;
                }
                // Last: it refuses nothing that is needed up to exec, but it need not look at it.
                if prepared.seccomp.as_deref().is_some_and(seccomp::enforce) {
                    word |= SECCOMP;
                }
            }
            let _nobody_to_tell = rustix::io::write(teller.as_fd(), &[word]);
            Ok(())
        });
    }
}

/// No program it starts gains rights by its owner or its capabilities.
#[expect(
    unsafe_code,
    reason = "prctl has no safe wrapper among the features in use"
)]
fn no_new_privileges() -> bool {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) == 0 }
}

/// Limits what one process may allocate (`RLIMIT_DATA`).
fn limit_data(bytes: u64) -> bool {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(Resource::Data, limit).is_ok()
}

/// Becomes `account` for good. Async-signal-safe: the kernel's calls themselves, since libc's would
/// ask other threads to follow, and there are none in the child.
#[expect(
    unsafe_code,
    reason = "setgroups, setgid and setuid have no safe wrapper for a child"
)]
fn become_user(account: &Account) -> io::Result<()> {
    #[cfg(not(target_arch = "arm"))]
    use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETGID, SYS_setresuid as SETUID};
    #[cfg(target_arch = "arm")]
    use libc::{
        SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETGID, SYS_setresuid32 as SETUID,
    };
    let done = |result: libc::c_long| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let (uid, gid) = (account.uid, account.gid);
    // SAFETY: the kernel reads `len` numbers from the groups, which live as long as `account`; the
    // other calls take numbers only.
    unsafe {
        done(libc::syscall(
            SETGROUPS,
            account.groups.len(),
            account.groups.as_ptr(),
        ))?;
        done(libc::syscall(SETGID, gid, gid, gid))?;
        done(libc::syscall(SETUID, uid, uid, uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_written_as_people_write_them() {
        for (text, bytes) in [("200 MB", 200_000_000), ("64MiB", 64 << 20), ("4096", 4096)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "MB", "-1 MB", "1 XB", "99999999999 GB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            (parse_percent("50%"), parse_percent("200")),
            (Ok(50), Ok(200))
        );
        for wrong in ["", "0", "-5", "half", "10001%"] {
            assert!(parse_percent(wrong).is_err(), "{wrong}");
        }
    }
}
