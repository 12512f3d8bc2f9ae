//! `pytheas token`: who may talk to the hub.

use std::io;

use clap::Subcommand;
use pytheas_api::{NewToken, Role, TokenRequest, TokenView};
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, ago, now_ms},
};

/// Verbs on tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a token and print it, this once
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// A name for people, e.g. `ci`
    name: String,
    /// What it may do: admin, operator, viewer or publisher
    #[arg(long, default_value = "operator")]
    role: Role,
    #[command(flatten)]
    hub: HubArgs,
}

/// List the tokens there are
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Make a token worthless
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Its number
    id: i64,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Created(NewToken);

impl Show for Created {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line(&self.0.token)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Tokens(Vec<TokenView>);

impl Show for Tokens {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let now = now_ms();
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|token| {
                [
                    token.id.to_string(),
                    token.name.clone(),
                    token.role.to_string(),
                    ago(token.created_ms, now),
                    token
                        .last_used_ms
                        .map_or("never".into(), |then| ago(then, now)),
                ]
            })
            .collect();
        out.table(["ID", "NAME", "ROLE", "MADE", "USED"], &rows)
    }
}

/// Runs the verb.
pub(crate) fn run(command: &TokenCommand, context: &Context) -> miette::Result<()> {
    match command {
        TokenCommand::Create(args) => {
            let request = TokenRequest {
                name: args.name.clone(),
                role: args.role,
            };
            context.show(&Created(
                HubClient::new(&args.hub)?.post("tokens", &request)?,
            ))
        }
        TokenCommand::List(args) => {
            context.show(&Tokens(HubClient::new(&args.hub)?.get("tokens")?))
        }
        TokenCommand::Revoke(args) => {
            HubClient::new(&args.hub)?.delete(&format!("tokens/{}", args.id))?;
            context.note(format!("revoked token {}", args.id));
            Ok(())
        }
    }
}
