//! The demo's processes: real ones, each with a log file, ended whatever happens to us.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use miette::{Context as _, IntoDiagnostic};
use rustix::process::{Pid, Signal, kill_process};

/// A child that is ended when this is dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `pytheas ARGS…` with its output in `log`.
    pub(super) fn start(
        name: &str,
        log: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> miette::Result<Self> {
        let program = std::env::current_exe().into_diagnostic()?;
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .into_diagnostic()?;
        let error = out.try_clone().into_diagnostic()?;
        let mut command = Command::new(program);
        prepare(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error)
            // Ends the child even when we are killed and cannot.
            .env("PYTHEAS_EXIT_WITH_PARENT", "1")
            .spawn()
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot start the {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// An error with the end of the log when the process has ended, which it should not.
    pub(super) fn check(&mut self) -> miette::Result<()> {
        match self.child.try_wait().into_diagnostic()? {
            None => Ok(()),
            Some(status) => Err(miette::miette!(
                help = format!("its log is `{}`", self.log.display()),
                "the {} ended by itself ({status}); its last words:\n{}",
                self.name,
                self.last_words()
            )),
        }
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _may_be_gone = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(12) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
