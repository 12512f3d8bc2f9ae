//! `pytheas board logs`: what a board prints, as it comes.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use pytheas_board::link::LinkError;

use super::BoardArgs;
use crate::context::Context;

/// Show what a board prints, without disturbing its program
///
/// Ends with Ctrl-C, or after `--for`. A port that goes away, as that of a board
/// on USB does when it resets, is waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Restart the board first, to see it start
    #[arg(long)]
    restart: bool,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    #[command(flatten)]
    board: BoardArgs,
}

/// Shows it.
pub(super) fn run(args: &LogsArgs, context: &Context) -> miette::Result<()> {
    let mut board = args.board.open(context)?;
    if args.restart {
        board.restart()?;
    }
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let hour = Instant::now() + Duration::from_secs(3600);
        let until = end.unwrap_or(hour);
        match board.output(until) {
            Ok(bytes) => {
                let mut out = io::stdout().lock();
                if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
            Err(LinkError::Stopped) => return Ok(()),
            Err(LinkError::Gone { port }) => {
                context.note(format!("the board on `{port}` went away; waiting for it"));
                match board.open_again(until) {
                    Ok(()) => context.note(format!("it is back on `{port}`")),
                    Err(LinkError::Stopped) => return Ok(()),
                    Err(_) if end.is_some() => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}
