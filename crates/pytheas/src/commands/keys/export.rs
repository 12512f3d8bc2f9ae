//! `pytheas keys export`: the public half of a key, for whoever gives it a role; with `--board`
//! those of the role that signs releases, as boards keep them.

use std::{io, path::PathBuf};

use miette::{IntoDiagnostic, WrapErr};
use pytheas_repo::keys::{self, boards};
use serde::Serialize;

use super::{KeysArgs, ask, new::give};
use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Write the public half of a key, or with --board what boards trust
///
/// Boards keep the raw Ed25519 public keys, 32 bytes each, in `/pytheas/keys`;
/// `pytheas board setup` puts them there. With `--board` and `-o` the file is
/// written just so, without `-o` the keys are shown in hex.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The key: its file's name without ending, or the first digits of its id
    #[arg(required_unless_present = "board")]
    name: Option<String>,
    /// The keys that boards trust: those of the targets role
    #[arg(long, conflicts_with = "name")]
    board: bool,
    /// The keys that boards trust for what this team publishes, instead of the targets role's
    #[arg(long = "as", value_name = "TEAM", requires = "board")]
    team: Option<String>,
    #[command(flatten)]
    keys: KeysArgs,
    /// Write it to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct BoardKeys {
    keys: Vec<String>,
}

impl Show for BoardKeys {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        self.keys.iter().try_for_each(|key| out.line(key))
    }
}

fn for_boards(args: &ExportArgs, context: &Context) -> miette::Result<()> {
    let keys = match &args.team {
        Some(team) => boards::team_board_keys(&args.keys.dir(), team)?,
        None => boards::board_keys(&args.keys.dir())?,
    };
    let Some(file) = &args.output else {
        let keys = keys.iter().map(boards::hex).collect();
        return context.show(&BoardKeys { keys });
    };
    pytheas_durable::replace(file, &keys.concat())
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", file.display()))?;
    context.note(format!("wrote {} keys to `{}`", keys.len(), file.display()));
    Ok(())
}

/// Writes it.
pub(super) fn run(args: &ExportArgs, context: &Context) -> miette::Result<()> {
    let Some(name) = &args.name else {
        return for_boards(args, context);
    };
    let public = keys::export(&args.keys.dir(), name, &ask)?;
    give(&public, args.output.as_ref(), context)
}
