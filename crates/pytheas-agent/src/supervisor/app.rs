//! The app's process: started in a group of its own that dies with the agent, stopped whole.

use std::{
    io::{self, PipeReader, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getppid, kill_process_group, pidfd_open,
    set_parent_process_death_signal, waitid,
};

use tracing::warn;

use super::{
    Launch,
    confine::{Confinement, Guard, Prepared},
    leftover,
    log::AppLog,
};
use crate::paths::StateDir;

/// Variables of the agent that are not the app's business.
const NOT_FOR_THE_APP: &[&str] = &[
    "PYTHEAS_FAULT",
    crate::launcher::TREE_ENV,
    crate::http::PIN_VARIABLE,
    "PYTHEAS_ENROLMENT_KEY",
    "PYTHEAS_TOKEN",
    "PYTHEAS_TARGET_TOKEN",
    "PYTHEAS_GATEWAY_TOKEN",
    "PYTHEAS_KEY_PASSPHRASE",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A started app.
pub(super) struct App {
    child: Child,
    pidfd: Option<OwnedFd>,
    output: Option<PipeReader>,
    pid_file: std::path::PathBuf,
    guards: Vec<Guard>,
}

impl App {
    /// Starts `launch` from the current slot.
    pub(super) fn spawn(
        dir: &StateDir,
        launch: &Launch,
        notify_socket: &str,
        watchdog: Option<Duration>,
        confinement: &Confinement,
    ) -> io::Result<Self> {
        let data = dir.data();
        pytheas_durable::create_dir_all(&data)?;
        let prepared = Prepared::new(confinement, dir)?;
        let (output, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let mut command = launch.command(dir);
        for name in NOT_FOR_THE_APP {
            command.env_remove(name);
        }
        command
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .env("PYTHEAS_DATA_DIR", &data)
            .env("PYTHEAS_RELEASE", launch.release.to_string())
            .env("NOTIFY_SOCKET", notify_socket)
            .env(leftover::MARK, launch.pid_file(dir))
            // Byte code written into a slot would make it another tree than the verified one.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&data)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let confined = prepared.confine(&mut command, &data)?;
        // After another user was taken on, which the kernel takes as a reason to forget it.
        die_with_the_agent(&mut command);
        let child = command.spawn()?;
        drop(command); // its copies of the pipe's writing end, or the output would never end
        let pid_file = launch.pid_file(dir);
        // Without the note (full disk) the app runs all the same; its mark tells it too.
        if let Err(error) = leftover::note(&pid_file, child.id()) {
            warn!("cannot write `{}`: {error}", pid_file.display());
        }
        let pidfd = as_pid(&child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self {
            child,
            pidfd,
            output: Some(output),
            pid_file,
            guards: confined.guards(),
        })
    }

    /// What protects the device from it.
    pub(super) fn guards(&self) -> &[Guard] {
        &self.guards
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Moves what the app has written into the log; at most 1 MiB, so that others get their turn.
    pub(super) fn copy_output(&mut self, log: &mut AppLog) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            let Some(output) = &mut self.output else {
                return;
            };
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(len) => log.write(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// How the app ended, if it has; what it left in its group is ended as well.
    pub(super) fn ended(&mut self, log: &mut AppLog) -> Option<String> {
        // Look without reaping: as long as the app is not reaped, its process group's number
        // cannot belong to anybody else, and it is safe to kill the group.
        let pid = as_pid(&self.child)?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(None) = waitid(WaitId::Pid(pid), look) {
            return None;
        }
        let _nobody_left = kill_process_group(pid, Signal::KILL);
        let how = match self.child.wait() {
            Ok(status) => describe(status),
            Err(error) => format!("cannot learn how it ended: {error}"),
        };
        self.copy_output(log);
        leftover::end(&self.pid_file); // daemons that left the group
        Some(how)
    }

    /// Asks the app to end, ends it after `timeout`; returns how it ended.
    pub(super) fn stop(&mut self, timeout: Duration, log: &mut AppLog) -> String {
        let deadline = Instant::now() + timeout;
        self.signal(Signal::TERM);
        let mut killed = false;
        loop {
            self.copy_output(log);
            if let Some(how) = self.ended(log) {
                let late = if killed {
                    " (it did not end after SIGTERM)"
                } else {
                    ""
                };
                return format!("{how}{late}");
            }
            if !killed && Instant::now() >= deadline {
                killed = true;
                self.signal(Signal::KILL);
            }
            self.nap();
        }
    }

    /// Sends a signal to the app and its children.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = as_pid(&self.child) {
            let _gone_already = kill_process_group(pid, signal);
        }
    }

    /// Waits a moment, less when the app ends.
    fn nap(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        match &self.pidfd {
            Some(pidfd) => {
                let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
                let _interrupted_is_fine = poll(&mut fds, Some(&moment));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Only reached with a living app when the supervisor panics.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _reaped = self.child.wait();
        }
    }
}

fn as_pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = Signal::from_named_raw(signal).map_or("signal", name_of);
            format!("killed by {name} ({signal})")
        }
        (None, None) => "ended".into(),
    }
}

fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::HUP => "SIGHUP",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::PIPE => "SIGPIPE",
        Signal::SEGV => "SIGSEGV",
        Signal::TERM => "SIGTERM",
        _ => "signal",
    }
}

/// Makes the kernel end the app when the supervisor's thread (and so the agent) ends.
#[expect(
    unsafe_code,
    reason = "PR_SET_PDEATHSIG can only be set by the child itself, before exec"
)]
pub(crate) fn die_with_the_agent(command: &mut Command) {
    let agent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two
    // system calls (prctl, getppid) and builds an `io::Error` without allocating; it touches no
    // lock and no memory that another thread may have left half written.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The agent may have ended between fork and prctl; then nobody would send the signal.
            if getppid() != Some(agent) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
}
