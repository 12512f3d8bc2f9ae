//! `pytheas releases`: what the hub's repository holds.

use std::io;

use pytheas_api::ReleaseView;
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, bytes},
};

/// List the releases in the hub's repository
#[derive(Debug, clap::Args)]
pub(crate) struct ReleasesArgs {
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Releases(Vec<ReleaseView>);

impl Show for Releases {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|release| {
                [
                    format!("{}@{}", release.name, release.version),
                    release.platform.clone(),
                    release.form.clone(),
                    bytes(release.size_bytes),
                    release.files.to_string(),
                    release.deltas.to_string(),
                    match &release.board {
                        Some(board) => board.counter.to_string(),
                        None => String::new(),
                    },
                    release.tree.chars().take(12).collect(),
                ]
            })
            .collect();
        out.table(
            [
                "RELEASE", "PLATFORM", "FORM", "SIZE", "FILES", "DELTAS", "COUNTER", "TREE",
            ],
            &rows,
        )
    }
}

/// Lists them.
pub(crate) fn run(args: &ReleasesArgs, context: &Context) -> miette::Result<()> {
    context.show(&Releases(HubClient::new(&args.hub)?.get("releases")?))
}
