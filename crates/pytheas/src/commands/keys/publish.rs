//! `pytheas keys publish`: a repository learns of new keys, or is signed again.

use std::{io, path::PathBuf};

use jiff::Timestamp;
use pytheas_repo::{
    keys::{PublisherKeys, proposal::Proposal},
    publish::{Events, Fresh, Options, Reached, Refresh, publish_keys},
};
use serde::Serialize;

use super::{KeysArgs, RepoArgs, ask, block_on};
use crate::{
    commands::publish::UPLOADED,
    context::Context,
    output::{Paint, Show},
};

/// Bring new keys to a repository, and sign anew what they demand
///
/// Puts the root metadata where devices look for it, then signs snapshot and
/// timestamp with the online keys of the folder. When those were replaced,
/// what the old ones signed is not believed: the newest targets metadata that
/// your keys signed is taken. Look at the releases it lists.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    keys: KeysArgs,
    /// Leave this release out from now on, e.g. `app/1.0/linux-x86_64/release.json`
    #[arg(long, value_name = "TARGET")]
    drop: Vec<String>,
    /// Put this in force: a proposal of targets, or of a team, that `pytheas keys sign` completed
    #[arg(long, value_name = "FILE", conflicts_with = "drop")]
    proposal: Option<PathBuf>,
    /// If targets signatures are missing, write the proposal here instead of failing
    #[arg(long, value_name = "FILE")]
    propose: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown {
    root_version: u64,
    targets_version: Option<u64>,
    snapshot_version: Option<u64>,
    timestamp_version: Option<u64>,
    timestamp_expires: Option<String>,
    recovered: bool,
    releases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<PathBuf>,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("root", format!("version {}", self.root_version))?;
        if let Some(version) = self.targets_version {
            out.fact("targets", format!("signed again, version {version}"))?;
        }
        if let (Some(snapshot), Some(timestamp), Some(expires)) = (
            self.snapshot_version,
            self.timestamp_version,
            &self.timestamp_expires,
        ) {
            out.fact("snapshot", format!("version {snapshot}"))?;
            let text = format!("version {timestamp}, until {expires}");
            out.fact("timestamp", text)?;
        }
        if let Some(file) = &self.proposal {
            out.fact("proposal", file.display())?;
        }
        for release in &self.releases {
            out.fact("release", release)?;
        }
        Ok(())
    }
}

/// Brings them.
pub(super) fn run(args: &PublishArgs, context: &Context) -> miette::Result<()> {
    let store = args.repo.open()?;
    let proposal = args.proposal.as_deref().map(Proposal::read).transpose()?;
    let dir = args.keys.dir();
    // A team has no online keys: the hub puts what it uploads in force.
    let keys = match proposal.as_ref().and_then(Proposal::team) {
        Some(team) if !dir.join("online").exists() => PublisherKeys::load_team(&dir, team, &ask)?,
        _ => PublisherKeys::load_some(&dir, &ask)?,
    };
    let refresh = Refresh {
        drop: args.drop.clone(),
        proposal,
    };
    let options = Options {
        propose: args.propose.clone(),
        ..Options::at(Timestamp::now())
    };
    let events = Events::none();
    let fresh: Fresh = block_on(publish_keys(&store, &keys, &refresh, &options, &events))??;
    if fresh.recovered {
        context.warn(
            "snapshot and timestamp did not verify under these keys and were not believed; check the releases",
        );
    }
    if fresh.reached == Reached::Uploaded {
        context.note(UPLOADED);
    }
    let online = fresh.online;
    context.show(&Shown {
        root_version: fresh.root,
        targets_version: fresh.targets,
        snapshot_version: online.map(|(snapshot, ..)| snapshot),
        timestamp_version: online.map(|(_, timestamp, _)| timestamp),
        timestamp_expires: online.map(|(.., expires)| expires.to_string()),
        recovered: fresh.recovered,
        releases: fresh.releases,
        proposal: match fresh.reached {
            Reached::Proposed(file) => Some(file),
            _ => None,
        },
    })
}
