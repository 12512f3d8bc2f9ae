//! Memory and processor limits: a cgroup of the app's own (v2), else the process's limit on data.
//!
//! The agent's cgroup has to be its own to divide (`Delegate=yes` in a unit, or root): the agent
//! moves into `agent/` below it, since a cgroup with processes cannot have limited children
//! (kernel documentation `cgroup-v2`, "no internal processes").

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Length of the period over which processor time is shared out, microseconds.
const PERIOD_US: u64 = 100_000;

/// The app's cgroup.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// `cgroup.procs`, which a process joins by writing `0` to it.
    pub(super) procs: File,
    /// Which limits it enforces.
    pub(super) memory: bool,
    pub(super) cpu: bool,
}

impl Cgroup {
    /// A cgroup with these limits.
    ///
    /// # Errors
    /// When there is no cgroup v2 that this process may divide, or it can limit neither.
    pub(super) fn make(memory_bytes: Option<u64>, cpu_percent: Option<u32>) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let path =
            of_agent(&mounts, &own).ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))?;
        Self::make_in(&path, memory_bytes, cpu_percent)
    }

    fn make_in(
        agent: &Path,
        memory_bytes: Option<u64>,
        cpu_percent: Option<u32>,
    ) -> io::Result<Self> {
        let there = fs::read_to_string(agent.join("cgroup.controllers"))?;
        let has = |name: &str| there.split_whitespace().any(|word| word == name);
        let (memory, cpu) = (
            memory_bytes.filter(|_| has("memory")),
            cpu_percent.filter(|_| has("cpu")),
        );
        if memory.is_none() && cpu.is_none() {
            return Err(io::Error::other("its cgroup has no controllers for that"));
        }
        let (of_agent, of_app) = (agent.join("agent"), agent.join("app"));
        for path in [&of_agent, &of_app] {
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        write(&of_agent.join("cgroup.procs"), "0")?;
        for (name, wanted) in [("memory", memory.is_some()), ("cpu", cpu.is_some())] {
            if wanted {
                write(&agent.join("cgroup.subtree_control"), &format!("+{name}"))?;
            }
        }
        if let Some(bytes) = memory {
            write(&of_app.join("memory.max"), &bytes.to_string())?;
            // Swapping instead of ending would wear the flash; the whole app goes, not a part.
            let _without_swap = write(&of_app.join("memory.swap.max"), "0");
            let _since_4_19 = write(&of_app.join("memory.oom.group"), "1");
        }
        if let Some(percent) = cpu {
            let quota = u64::from(percent) * PERIOD_US / 100;
            write(&of_app.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        }
        Ok(Self {
            procs: OpenOptions::new()
                .write(true)
                .open(of_app.join("cgroup.procs"))?,
            memory: memory.is_some(),
            cpu: cpu.is_some(),
        })
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The cgroup v2 that the agent may divide, from `/proc/self/mounts` and `/proc/self/cgroup`. When
/// an agent before this one has divided it, the part `agent` is taken off again.
fn of_agent(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then_some(path)
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = path.strip_suffix("/agent").unwrap_or(path);
    // The root's processes are everybody's; never move them.
    (!path.is_empty() && path != "agent").then(|| Path::new(mount).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_cgroup_is_found_and_never_the_root() {
        let mounts =
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let at = |own: &str| of_agent(mounts, own).map(|path| path.display().to_string());
        let expected = Some("/sys/fs/cgroup/unified/system.slice/a.service".to_owned());
        assert_eq!(at("8:pids:/x\n0::/system.slice/a.service\n"), expected);
        assert_eq!(at("0::/system.slice/a.service/agent\n"), expected);
        assert_eq!(at("0::/\n"), None);
        assert_eq!(at("8:pids:/x\n"), None, "v1 only");
        assert_eq!(of_agent("proc /proc proc rw 0 0\n", "0::/a\n"), None);
    }

    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        // A folder with the files of a cgroup: what is written to a real one is the kernel's affair.
        let tmp = tempfile::tempdir().unwrap();
        let files = [
            "cgroup.controllers",
            "cgroup.subtree_control",
            "agent/cgroup.procs",
            "app/cgroup.procs",
            "app/memory.max",
            "app/memory.swap.max",
            "app/memory.oom.group",
            "app/cpu.max",
        ];
        for file in files {
            let path = tmp.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, b"").unwrap();
        }
        let make = |memory, cpu| Cgroup::make_in(tmp.path(), memory, cpu);
        assert!(make(Some(1 << 20), Some(50)).is_err(), "no controllers");
        pytheas_durable::replace(&tmp.path().join("cgroup.controllers"), b"cpu memory pids\n")
            .unwrap();
        let made = make(Some(64 << 20), Some(150)).unwrap();
        assert!(made.memory && made.cpu);
        let read = |file: &str| fs::read_to_string(tmp.path().join(file)).unwrap();
        assert_eq!(read("app/memory.max"), "67108864");
        assert_eq!(read("app/cpu.max"), "150000 100000");
        assert_eq!(read("agent/cgroup.procs"), "0");
    }
}
