//! `pytheas keys show`: which keys there are, who needs them, and until when they are good.

use jiff::Timestamp;
use pytheas_repo::{
    keys::{self, RootFile},
    publish,
};

use super::{AccessArgs, Keys, KeysArgs, block_on};
use crate::context::Context;

/// Show the keys, their roles and the root's fingerprint
///
/// With --repo also what the repository says: versions, when each role
/// expires, and the teams that may sign releases of their own.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// Show this repository's roles and teams, too
    #[arg(long, value_name = "DIR|URL")]
    repo: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Shows them.
pub(super) fn run(args: &ShowArgs, context: &Context) -> miette::Result<()> {
    let (dir, now) = (args.keys.dir(), Timestamp::now());
    let mut shown = Keys::of(&keys::show(&dir, now)?);
    if let Some(repo) = &args.repo {
        let store = args.access.open(repo)?;
        let root = RootFile::load(&dir)?;
        let (roles, teams) = block_on(publish::roles(&store, &root, now))??;
        shown = shown.with(roles, teams);
    }
    context.show(&shown)
}
