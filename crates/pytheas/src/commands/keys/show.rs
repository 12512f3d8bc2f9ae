//! `pytheas keys show`: which keys there are, and until when root is good.

use pytheas_repo::keys;

use super::{Keys, KeysArgs};
use crate::context::Context;

/// Show the keys, their roles and the root's fingerprint
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    keys: KeysArgs,
}

/// Shows them.
pub(super) fn run(args: &ShowArgs, context: &Context) -> miette::Result<()> {
    context.show(&Keys::of(&keys::show(&args.keys.dir())?))
}
