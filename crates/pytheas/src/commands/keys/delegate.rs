//! `pytheas keys delegate`: teams that sign their own releases.

use std::{io, path::PathBuf};

use jiff::Timestamp;
use pytheas_repo::{
    delegations::Delegate,
    keys::{self, PublisherKeys},
    publish::{Events, Options, Reached, delegate},
};
use serde::Serialize;

use super::{KeysArgs, RepoArgs, ask, block_on};
use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Let a team sign its own releases, change its keys, or stop it
///
/// The team makes a key called like itself (`pytheas keys new TEAM`), sends
/// the public half, and publishes with `pytheas publish --as TEAM`. Naming a
/// team again changes what is given; `--key` names all its keys from then on.
#[derive(Debug, clap::Args)]
pub(crate) struct DelegateArgs {
    /// The team
    team: String,
    /// Releases it may sign, e.g. `greenhouse/*`
    #[arg(long, value_name = "PATTERN", num_args = 1.., conflicts_with = "remove")]
    paths: Vec<String>,
    /// Public half of a key of the team; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    key: Vec<PathBuf>,
    /// Signatures a release of the team needs
    #[arg(long, value_name = "N", conflicts_with = "remove")]
    threshold: Option<u64>,
    /// The team may not sign anything any more; its releases are gone
    #[arg(long)]
    remove: bool,
    /// If targets signatures are missing, write the proposal here instead of failing
    #[arg(long, value_name = "FILE")]
    propose: Option<PathBuf>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    keys: KeysArgs,
}

#[derive(Serialize)]
struct Shown {
    changes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<PathBuf>,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for line in &self.changes {
            out.line(line)?;
        }
        match &self.proposal {
            Some(file) => out.fact("proposal", file.display()),
            None => Ok(()),
        }
    }
}

/// Does it.
pub(super) fn run(args: &DelegateArgs, context: &Context) -> miette::Result<()> {
    let change = if args.remove {
        Delegate::Remove {
            team: args.team.clone(),
        }
    } else {
        let files = args.key.iter().map(|file| keys::read_public(file));
        Delegate::Set {
            team: args.team.clone(),
            paths: args.paths.clone(),
            keys: files.collect::<Result<_, _>>()?,
            threshold: args.threshold,
        }
    };
    let store = args.repo.open()?;
    let dir = args.keys.dir();
    let keys = match args.propose {
        Some(_) => PublisherKeys::load_some(&dir, &ask)?,
        None => PublisherKeys::load(&dir, &ask)?,
    };
    let options = Options {
        propose: args.propose.clone(),
        ..Options::at(Timestamp::now())
    };
    let events = Events::none();
    let (changes, reached) = block_on(delegate(&store, &keys, &change, &options, &events))??;
    context.show(&Shown {
        changes,
        proposal: match reached {
            Reached::Proposed(file) => Some(file),
            _ => None,
        },
    })
}
