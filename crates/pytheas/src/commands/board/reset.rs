//! `pytheas board reset`: starts the board's program anew.

use super::BoardArgs;
use crate::context::Context;

/// Restart a board: Python anew, then `boot.py` and `main.py`
#[derive(Debug, clap::Args)]
pub(crate) struct ResetArgs {
    /// Reset the chip itself, by `machine.reset()` or the lines of the port
    #[arg(long)]
    hard: bool,
    #[command(flatten)]
    board: BoardArgs,
}

/// Restarts it.
pub(super) fn run(args: &ResetArgs, context: &Context) -> miette::Result<()> {
    let mut board = args.board.open(context)?;
    if args.hard {
        board.reset_hard()?;
    } else {
        board.restart()?;
    }
    context.note(format!("restarted the board on `{}`", board.port()));
    Ok(())
}
