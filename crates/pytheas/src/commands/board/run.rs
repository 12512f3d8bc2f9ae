//! `pytheas board run`: a program on the board, its output here.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use miette::{IntoDiagnostic, WrapErr};
use pytheas_board::link::LinkError;

use super::BoardArgs;
use crate::context::Context;

/// Run a program on a board without storing it there
///
/// What it prints is printed here, as it comes; lines that are typed or piped
/// in are what its `input()` reads. Ctrl-C stops the program, a second one this
/// command.
///
/// Examples: `pytheas board run blink.py`, `pytheas board run -c 'print(1)'`
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The program; `-` reads it from standard input
    #[arg(value_name = "FILE", required_unless_present = "code")]
    file: Option<PathBuf>,
    /// The program itself
    #[arg(long, short, value_name = "CODE", conflicts_with = "file")]
    code: Option<String>,
    #[command(flatten)]
    board: BoardArgs,
}

/// Runs it.
pub(super) fn run(args: &RunArgs, context: &Context) -> miette::Result<()> {
    let program = match (&args.code, &args.file) {
        (Some(code), _) => code.clone(),
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot read `{}`", file.display()))?,
        _ => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .into_diagnostic()
                .wrap_err("cannot read the program from standard input")?;
            text
        }
    };
    let mut board = args.board.open(context)?;
    board.enter()?;
    if args
        .file
        .as_ref()
        .is_none_or(|file| file.as_os_str() != "-")
        && !in_background()
    {
        board.read_from(typed());
    }
    let mut print = |bytes: &[u8]| {
        let mut out = io::stdout().lock();
        let _closed_pipe = out.write_all(bytes).and_then(|()| out.flush());
    };
    let done = match board.run(&program, None, &mut print) {
        Err(LinkError::Stopped) => {
            board
                .options()
                .stop
                .0
                .store(false, std::sync::atomic::Ordering::Relaxed);
            board.interrupt()?;
            board.follow(Some(Duration::from_secs(5)), &mut print)
        }
        done => done,
    };
    board.leave()?;
    Ok(done?)
}

/// Whether a shell runs this in the background: it would be stopped for reading its terminal.
fn in_background() -> bool {
    let front = rustix::termios::tcgetpgrp(io::stdin());
    front.is_ok_and(|front| front != rustix::process::getpgrp())
}

/// The lines of standard input, as they come and as a board's terminal sends them.
fn typed() -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    // It waits for a line to this command's end.
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            // What means something to the REPL must not outlive the program.
            let mut text: Vec<u8> = line.into_bytes();
            text.retain(|byte| *byte >= b' ' || *byte == b'\t');
            text.push(b'\r');
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}
