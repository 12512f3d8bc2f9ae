//! `pytheas device remove`: a device that is gone.

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
};

/// Remove a device; its token is worthless from then on
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Its id
    id: String,
    #[command(flatten)]
    hub: HubArgs,
}

/// Removes it.
pub(super) fn run(args: &RemoveArgs, context: &Context) -> miette::Result<()> {
    HubClient::new(&args.hub)?.delete(&format!("devices/{}", encoded(&args.id)))?;
    context.note(format!("removed device `{}`", args.id));
    Ok(())
}
