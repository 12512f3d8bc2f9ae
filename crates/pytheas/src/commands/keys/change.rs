//! `pytheas keys add|revoke|threshold|rotate|renew`: a new version of the root metadata.

use std::{io, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use pytheas_repo::keys::change::{self, Change, Changed, How, Source};
use serde::Serialize;

use super::{KeysArgs, Lacking, ask, new_passphrase};
use crate::{
    context::Context,
    output::{Paint, Show},
};

/// What all changes have in common.
#[derive(Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// How long the new root metadata is good
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    expires_days: u16,
}

/// Where the new key comes from.
#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// Use this key of the folder (a file's name or the first digits of an id) [default: make one]
    #[arg(long, value_name = "NAME")]
    use_key: Option<String>,
    /// Use the key whose public half is in this file; its holder signs elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "use_key")]
    public: Option<PathBuf>,
    /// Protect a key that is made by a passphrase (asked for, or PYTHEAS_KEY_PASSPHRASE)
    #[arg(long, conflicts_with_all = ["use_key", "public"])]
    passphrase: bool,
}

impl SourceArgs {
    fn source(&self) -> Source {
        match (&self.use_key, &self.public) {
            (Some(name), _) => Source::Here(name.clone()),
            (_, Some(file)) => Source::Public(file.clone()),
            _ => Source::New,
        }
    }
}

/// Give a role a further key
///
/// Makes a key, or takes one that `pytheas keys new` made here or elsewhere.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// root, targets, snapshot or timestamp
    role: String,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Take a key away from all roles that have it
///
/// The roles go on with the keys that are left; a role's last key is replaced
/// instead (`pytheas keys rotate`). No key file is removed. A team's keys are
/// changed by `pytheas keys delegate`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The first digits of its id, or its file's name, as `pytheas keys show` lists them
    #[arg(required_unless_present = "named")]
    key: Option<String>,
    /// The same, as `pytheas keys rotate` takes it
    #[arg(long = "key", id = "named", value_name = "KEY", conflicts_with = "key")]
    named: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Say how many keys of a role must sign
#[derive(Debug, clap::Args)]
pub(crate) struct ThresholdArgs {
    /// root, targets, snapshot or timestamp
    role: String,
    /// Signatures needed
    signatures: u64,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Replace keys of a role by new ones
///
/// After the theft of a hub: `pytheas keys rotate online`, then
/// `pytheas keys publish`, and copy the folder `online` to the new hub.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    /// root, targets, snapshot, timestamp, or online (the last two)
    role: String,
    /// Replace only this key (the first digits of its id); needed when root or targets has several
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Make the root metadata good for longer
#[derive(Debug, clap::Args)]
pub(crate) struct RenewArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// What a change did.
#[derive(Serialize)]
struct Shown {
    root_version: u64,
    expires: String,
    changes: Vec<String>,
    new_files: Vec<PathBuf>,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<PathBuf>,
    missing: Vec<Lacking>,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let state = if self.in_force {
            "in force here"
        } else {
            "waits for signatures"
        };
        out.fact("root", format!("version {}, {state}", self.root_version))?;
        for line in &self.changes {
            out.fact("change", line)?;
        }
        for file in &self.new_files {
            out.fact("new key", file.display())?;
        }
        for lacking in &self.missing {
            out.fact("missing", lacking.text())?;
        }
        if let Some(file) = &self.proposal {
            out.fact("proposal", file.display())?;
        }
        Ok(())
    }
}

pub(super) fn add(args: &AddArgs, context: &Context) -> miette::Result<()> {
    let roles = change::roles(&args.role)?.into_iter();
    let change = roles.map(|role| Change::Add(role, args.source.source()));
    let change = Change::All(change.collect());
    run(&change, &args.change, args.source.passphrase, context)
}

pub(super) fn revoke(args: &RevokeArgs, context: &Context) -> miette::Result<()> {
    let key = args.key.as_ref().or(args.named.as_ref());
    let change = Change::Revoke(key.cloned().unwrap_or_default());
    run(&change, &args.change, false, context)
}

pub(super) fn threshold(args: &ThresholdArgs, context: &Context) -> miette::Result<()> {
    let roles = change::roles(&args.role)?.into_iter();
    let change = roles.map(|role| Change::Threshold(role, args.signatures));
    run(&Change::All(change.collect()), &args.change, false, context)
}

pub(super) fn rotate(args: &RotateArgs, context: &Context) -> miette::Result<()> {
    let roles = change::roles(&args.role)?;
    let change = Change::Rotate(roles, args.key.clone(), args.source.source());
    run(&change, &args.change, args.source.passphrase, context)
}

pub(super) fn renew(args: &RenewArgs, context: &Context) -> miette::Result<()> {
    run(&Change::Renew, &args.change, false, context)
}

fn run(
    change: &Change,
    args: &ChangeArgs,
    passphrase: bool,
    context: &Context,
) -> miette::Result<()> {
    let secret = passphrase
        .then(|| new_passphrase("passphrase for the new key"))
        .transpose()?;
    let dir = args.keys.dir();
    let how = How {
        dir: &dir,
        now: Timestamp::now(),
        root_valid: SignedDuration::from_hours(24 * i64::from(args.expires_days)),
        new_passphrase: secret.as_deref().map(String::as_str),
        passphrase: &ask,
    };
    let changed = change::change(&how, change)?;
    show(&changed, context)?;
    if let Some(file) = &changed.proposal {
        context.note(format!(
            "carry `{}` to whoever holds these keys: `pytheas keys sign FILE` there, and once more here at the end",
            file.display()
        ));
    } else {
        context.note(
            "devices learn it with `pytheas keys publish --repo …`, or the next `pytheas publish`",
        );
    }
    Ok(())
}

fn show(changed: &Changed, context: &Context) -> miette::Result<()> {
    context.show(&Shown {
        root_version: changed.version,
        expires: changed.expires.to_string(),
        changes: changed.says.clone(),
        new_files: changed.made.clone(),
        in_force: changed.proposal.is_none(),
        proposal: changed.proposal.clone(),
        missing: Lacking::of(&changed.missing),
    })
}
