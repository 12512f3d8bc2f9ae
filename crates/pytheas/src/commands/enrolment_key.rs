//! `pytheas enrolment-key`: keys that admit devices without a person.

use std::io;

use clap::Subcommand;
use pytheas_api::{EnrolmentKey, EnrolmentKeyRequest, EnrolmentKeyView};
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, ago, now_ms, span},
};

/// Verbs on enrolment keys.
#[derive(Debug, Subcommand)]
pub(crate) enum EnrolmentKeyCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make an enrolment key and print it, this once
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// A name for people
    #[arg(default_value = "")]
    name: String,
    /// How many devices it may admit [default: no limit]
    #[arg(long)]
    uses: Option<u32>,
    /// How long it is good for, e.g. `7d` [default: for ever]
    #[arg(long, value_parser = seconds, value_name = "DURATION")]
    valid: Option<u32>,
    #[command(flatten)]
    hub: HubArgs,
}

/// List the enrolment keys there are
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Make an enrolment key worthless
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Its number
    id: i64,
    #[command(flatten)]
    hub: HubArgs,
}

fn seconds(text: &str) -> Result<u32, String> {
    pytheas_release::parse_duration_ms(text)
        .and_then(|ms| u32::try_from(ms / 1000).ok())
        .ok_or_else(|| format!("`{text}` is not a duration such as `12h`, `7d`"))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Created(EnrolmentKey);

impl Show for Created {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line(&self.0.key)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Keys(Vec<EnrolmentKeyView>);

impl Show for Keys {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let now = now_ms();
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|key| {
                [
                    key.id.to_string(),
                    key.name.clone(),
                    key.uses_left.map_or("no limit".into(), |n| n.to_string()),
                    ago(key.created_ms, now),
                    expiry(key.expires_ms, now),
                ]
            })
            .collect();
        out.table(["ID", "NAME", "USES LEFT", "MADE", "EXPIRES"], &rows)
    }
}

/// `never`, `in 3 h`, `12 s ago`.
fn expiry(at_ms: Option<i64>, now_ms: i64) -> String {
    match at_ms {
        None => "never".into(),
        Some(at_ms) if at_ms <= now_ms => ago(at_ms, now_ms),
        Some(at_ms) => format!("in {}", span(at_ms - now_ms)),
    }
}

/// Runs the verb.
pub(crate) fn run(command: &EnrolmentKeyCommand, context: &Context) -> miette::Result<()> {
    match command {
        EnrolmentKeyCommand::Create(args) => {
            let request = EnrolmentKeyRequest {
                name: args.name.clone(),
                uses: args.uses,
                valid_s: args.valid,
            };
            context.show(&Created(
                HubClient::new(&args.hub)?.post("enrolment-keys", &request)?,
            ))
        }
        EnrolmentKeyCommand::List(args) => {
            context.show(&Keys(HubClient::new(&args.hub)?.get("enrolment-keys")?))
        }
        EnrolmentKeyCommand::Revoke(args) => {
            HubClient::new(&args.hub)?.delete(&format!("enrolment-keys/{}", args.id))?;
            context.note(format!("revoked enrolment key {}", args.id));
            Ok(())
        }
    }
}
