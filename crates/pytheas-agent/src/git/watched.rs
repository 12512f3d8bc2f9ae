//! A program that talks to a server, given up when nothing has been heard of it for too long.
//!
//! Over HTTP git itself gives up a server that is silent; over `git://` and SSH it waits for ever.
//! So it is asked to show its progress on standard error, and that is listened to. A server that
//! keeps it showing progress without ever coming to an end is given up as well.

use std::{
    io::{self, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Most of what it says that is kept, in bytes.
const SAID_MAX: usize = 64 << 10;
/// How often it is looked whether it has ended: who it leaves behind (SSH's `ControlPersist`) may hold
/// its standard error open for hours.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long it may take to end when it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long a program may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a word.
    pub(super) silence: Duration,
    /// Altogether.
    pub(super) all: Duration,
}

/// How it ended, and what it said on standard error, without progress.
///
/// # Errors
/// `TimedOut` when `patience` is over; whatever starting it says.
pub(super) fn run(command: &mut Command, patience: Patience) -> io::Result<(ExitStatus, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let (tell, heard) = channel();
    if let Some(mut pipe) = child.stderr.take() {
        // Not joined: what the program leaves behind may hold the pipe open.
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut block) {
                if tell.send(block[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    let mut said = Vec::new();
    let begun = Instant::now();
    let mut heard_at = begun;
    loop {
        if begun.elapsed() >= patience.all {
            end(&mut child)?;
            let why = format!("not done after {} minutes", patience.all.as_secs() / 60);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        match heard.recv_timeout(LOOK_AGAIN.min(patience.silence)) {
            Ok(bytes) => {
                heard_at = Instant::now();
                if said.len() < SAID_MAX {
                    said.extend(bytes);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) if heard_at.elapsed() < patience.silence => {}
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child)?;
                let why = format!(
                    "nothing was heard for {} seconds",
                    patience.silence.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
    Ok((child.wait()?, without_progress(&said)))
}

/// Asks it to end, so that it takes its own helpers with it; then kills it.
fn end(child: &mut Child) -> io::Result<()> {
    let asked = Pid::from_child(child);
    let _gone_already = kill_process(asked, Signal::TERM);
    for _ in 0..20 {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(GRACE / 20);
    }
    child.kill()?;
    child.wait().map(drop)
}

/// Progress overwrites itself: its lines have carriage returns.
fn without_progress(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter(|line| !line.contains('\r'));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn silence(ms: u64) -> Patience {
        let all = Duration::from_secs(3600);
        let silence = Duration::from_millis(ms);
        Patience { silence, all }
    }

    #[test]
    fn one_that_always_speaks_and_never_ends_is_ended() {
        let patience = Patience {
            silence: Duration::from_secs(60),
            all: Duration::from_millis(700),
        };
        let script = "while :; do printf 'at 1%%\\r' >&2; sleep 0.05; done";
        let error = run(&mut shell(script), patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "not done after 0 minutes");
    }

    #[test]
    fn a_silent_program_is_ended_also_when_it_does_not_want_to() {
        for script in [
            "echo a >&2; exec sleep 1000",
            "trap '' TERM; echo a >&2; while :; do sleep 1; done",
        ] {
            let error = run(&mut shell(script), silence(300)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
    }

    #[test]
    fn one_that_leaves_others_behind_is_not_waited_for_any_longer() {
        // It would be silent for as long as the silence that is allowed.
        let script = "echo a >&2; sleep 20 & exit 0";
        let (status, said) = run(&mut shell(script), silence(10_000)).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(0), "a"));
    }

    #[test]
    fn one_that_speaks_is_waited_for_and_its_errors_are_told_without_its_progress() {
        let script = "printf 'at 1%%\\rat 9%%\\rdone\\nfatal: no\\n' >&2; exit 3";
        let (status, said) = run(&mut shell(script), silence(60_000)).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "fatal: no"));
    }
}
