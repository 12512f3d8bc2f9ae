//! `pytheas board repl`: this terminal becomes the board's.

use std::{
    io::{self, IsTerminal, Read, Write},
    time::Duration,
};

use miette::{IntoDiagnostic, WrapErr};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use super::BoardArgs;
use crate::context::Context;

/// Ctrl-].
const LEAVE: u8 = 0x1d;
/// Ctrl-X.
const LEAVE_TOO: u8 = 0x18;

/// Talk to a board's REPL; Ctrl-] or Ctrl-X ends
#[derive(Debug, clap::Args)]
pub(crate) struct ReplArgs {
    #[command(flatten)]
    board: BoardArgs,
}

/// Bytes of a paste that go at once.
const PASTED: usize = 64;

/// The terminal's modes; they come back when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _closed = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Talks.
pub(super) fn run(args: &ReplArgs, context: &Context) -> miette::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(miette::miette!(
            code = "pytheas::board::no_terminal",
            help = "`pytheas board run FILE` runs a program, `pytheas board logs` shows what the board prints",
            "the REPL needs a terminal"
        ));
    }
    let mut board = args.board.open(context)?;
    context.note(format!("connected to `{}`; Ctrl-] ends", board.port()));
    let stop = board.stop().clone();
    let raw = Raw::enter()
        .into_diagnostic()
        .wrap_err("cannot set up the terminal")?;
    let wire = board.wire();
    let mut talk = || -> io::Result<()> {
        // The friendly REPL and its banner, also where a tool that was killed has left the raw one.
        wire.give(b"\r\x02")?;
        let mut buf = [0; 4096];
        let wait = Timespec::try_from(Duration::from_millis(200)).map_err(io::Error::other)?;
        while !stop.wanted() {
            let count = wire.take(&mut buf)?;
            if count > 0 {
                show(&buf[..count])?;
                continue;
            }
            let stdin = io::stdin();
            let fd = wire.fd();
            let mut both = [
                PollFd::new(&stdin, PollFlags::IN),
                PollFd::new(&fd, PollFlags::IN),
            ];
            match poll(&mut both, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if both[0].revents().is_empty() {
                continue;
            }
            let count = stdin.lock().read(&mut buf)?;
            let end = buf[..count]
                .iter()
                .position(|byte| [LEAVE, LEAVE_TOO].contains(byte));
            for part in buf[..end.unwrap_or(count)].chunks(PASTED) {
                wire.give(part)?;
                // A board that cannot get rid of its echo takes nothing more.
                let mut echo = [0; 4096];
                let count = wire.take(&mut echo)?;
                show(&echo[..count])?;
            }
            if count == 0 || end.is_some() {
                return Ok(());
            }
        }
        Ok(())
    };
    let talked = talk();
    drop(raw);
    context.note("");
    match talked {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(miette::miette!(
            code = "pytheas::board::io::gone",
            help = "it was unplugged, or reset itself; when it is back, try again",
            "the board went away"
        )),
        talked => talked
            .into_diagnostic()
            .wrap_err("the line to the board failed"),
    }
}
