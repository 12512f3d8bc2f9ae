//! `pytheas keys export`: the public half of a key, for whoever gives it a role.

use std::path::PathBuf;

use pytheas_repo::keys;

use super::{KeysArgs, ask, new::give};
use crate::context::Context;

/// Write the public half of a key
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The key: its file's name without ending, or the first digits of its id
    name: String,
    #[command(flatten)]
    keys: KeysArgs,
    /// Write it to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes it.
pub(super) fn run(args: &ExportArgs, context: &Context) -> miette::Result<()> {
    let public = keys::export(&args.keys.dir(), &args.name, &ask)?;
    give(&public, args.output.as_ref(), context)
}
