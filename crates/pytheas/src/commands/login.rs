//! `pytheas login` and `pytheas logout`: keep a hub's token, or forget it.

use std::io::{IsTerminal, Read, Write};

use miette::IntoDiagnostic;
use pytheas_api::DeviceView;

use crate::{
    context::Context,
    credentials,
    hub_client::{HubArgs, HubClient, HubError},
};

/// Store a hub's token for later commands
///
/// Asks for the token (or reads it from standard input), tries it, and keeps
/// it in `~/.config/pytheas/credentials.json`, readable by you only.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Forget a hub's token
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Tries and stores the token.
pub(crate) fn run(args: &LoginArgs, context: &Context) -> miette::Result<()> {
    let mut hub = args.hub.clone();
    let token = match hub.token.take() {
        Some(token) => token,
        None => ask(&hub)?,
    };
    hub.token = Some(token.clone());
    match HubClient::new(&hub)?.get::<Vec<DeviceView>>("devices?limit=1") {
        // A publisher's token may not look at devices, but it is known.
        Ok(_) | Err(HubError::SaysNo { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let path = credentials::store(&hub.hub, Some(&token))?;
    context.note(format!(
        "stored the token for {} in {}",
        hub.hub,
        path.display()
    ));
    Ok(())
}

/// Forgets the token.
pub(crate) fn forget(args: &LogoutArgs, context: &Context) -> miette::Result<()> {
    credentials::store(&args.hub.hub, None)?;
    context.note(format!("forgot the token for {}", args.hub.hub));
    Ok(())
}

fn ask(hub: &HubArgs) -> miette::Result<String> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        let _shown_or_not = write!(std::io::stderr(), "token for {}: ", hub.hub);
        std::io::stdin().read_line(&mut text).into_diagnostic()?;
    } else {
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .into_diagnostic()?;
    }
    match text.trim() {
        "" => Err(miette::miette!(
            help = "give it on standard input or as `--token`",
            "no token given"
        )),
        token => Ok(token.to_owned()),
    }
}
