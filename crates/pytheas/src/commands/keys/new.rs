//! `pytheas keys new`: a key that no role uses yet.

use std::{io, path::PathBuf};

use miette::{IntoDiagnostic, WrapErr};
use pytheas_repo::keys;
use serde::Serialize;

use super::{KeysArgs, new_passphrase};
use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Make a key for yourself, your team, or one that a token signs with
///
/// The private half stays in `NAME.pem`. The public half goes to whoever
/// holds the root keys (`pytheas keys add ROLE --public FILE`) or the targets
/// keys (`pytheas keys delegate TEAM --key FILE`).
///
/// With --command, a program signs: it runs under `/bin/sh -c`, gets the
/// message on standard input (also in the file $PYTHEAS_MESSAGE, its SHA-256 in
/// $PYTHEAS_DIGEST) and answers on standard output or in the file
/// $PYTHEAS_SIGNATURE: raw, base64 or hex. It is tried at once.
#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// What the key is called
    name: String,
    #[command(flatten)]
    keys: KeysArgs,
    /// Protect it by a passphrase (asked for, or PYTHEAS_KEY_PASSPHRASE)
    #[arg(long, conflicts_with = "command")]
    passphrase: bool,
    /// Sign by running this program, e.g. a hardware token's
    #[arg(long, value_name = "COMMAND", requires = "public")]
    command: Option<String>,
    /// The public half of the command's key: PEM, or what `keys export` wrote
    #[arg(long, value_name = "FILE", requires = "command")]
    public: Option<PathBuf>,
    /// How long the command may take [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = timeout, requires = "command")]
    timeout: Option<u64>,
    /// Write the public half to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn timeout(text: &str) -> Result<u64, String> {
    pytheas_release::parse_duration_ms(text)
        .filter(|ms| *ms > 0)
        .ok_or_else(|| format!("`{text}` is not a duration such as `90s`"))
}

/// A public half.
#[derive(Serialize)]
pub(super) struct Public(serde_json::Value);

impl Show for Public {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line(&self.0)
    }
}

/// Shows a public half, or writes it to a file.
pub(super) fn give(
    public: &str,
    output: Option<&PathBuf>,
    context: &Context,
) -> miette::Result<()> {
    let Some(file) = output else {
        return context.show(&Public(serde_json::from_str(public).into_diagnostic()?));
    };
    pytheas_durable::replace(file, format!("{public}\n").as_bytes())
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", file.display()))?;
    context.note(format!("wrote the public half to `{}`", file.display()));
    Ok(())
}

/// Makes it.
pub(super) fn run(args: &NewArgs, context: &Context) -> miette::Result<()> {
    let dir = args.keys.dir();
    let public = match (&args.command, &args.public) {
        (Some(command), Some(public)) => {
            keys::new_command_key(&dir, &args.name, command, public, args.timeout)?
        }
        _ => {
            let secret = args
                .passphrase
                .then(|| new_passphrase(&format!("passphrase for the key {}", args.name)))
                .transpose()?;
            keys::new_key(&dir, &args.name, secret.as_deref().map(String::as_str))?
        }
    };
    give(&public, args.output.as_ref(), context)
}
