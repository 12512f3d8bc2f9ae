//! `pytheas rollout pause|resume|abort`: a person steps in.

use super::status::Detail;
use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
};

/// One rollout.
#[derive(Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Its number
    id: i64,
    #[command(flatten)]
    hub: HubArgs,
}

/// Does it.
pub(super) fn run(args: &ChangeArgs, verb: &str, context: &Context) -> miette::Result<()> {
    let path = format!("rollouts/{}/{verb}", args.id);
    context.show(&Detail(HubClient::new(&args.hub)?.post(&path, &())?))
}
