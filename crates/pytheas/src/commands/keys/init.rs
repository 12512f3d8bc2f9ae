//! `pytheas keys init`: a new repository's keys and its first root metadata.

use jiff::{SignedDuration, Timestamp};
use pytheas_repo::keys;

use super::{Keys, KeysArgs, new_passphrase};
use crate::context::Context;

/// Make the keys of a new repository
///
/// `root.pem` and `targets.pem` sign releases: keep them with you, best with a
/// passphrase. `online/` holds what a hub needs to keep the repository fresh.
/// `root.json` is what devices are enrolled with.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// Protect the root and targets keys by a passphrase (asked for, or PYTHEAS_KEY_PASSPHRASE)
    #[arg(long)]
    passphrase: bool,
    /// How long the root metadata is good
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    expires_days: u16,
}

/// Makes them.
pub(super) fn run(args: &InitArgs, context: &Context) -> miette::Result<()> {
    let secret = args
        .passphrase
        .then(|| new_passphrase("passphrase for the root and targets keys"))
        .transpose()?;
    let info = keys::init(&keys::Init {
        dir: &args.keys.dir(),
        passphrase: secret.as_deref().map(String::as_str),
        now: Timestamp::now(),
        root_valid: SignedDuration::from_hours(24 * i64::from(args.expires_days)),
    })?;
    context.show(&Keys::of(&info))?;
    if secret.is_none() {
        context.note("the root and targets keys have no passphrase; `--passphrase` gives them one");
    }
    Ok(())
}
