//! `pytheas keys sign`: a signature from whoever holds a key, on a machine of its own.

use std::{io, path::PathBuf};

use pytheas_repo::keys::proposal::{self, Signing};
use serde::Serialize;

use super::{KeysArgs, Lacking, ask};
use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Sign a proposal with the keys that are here
///
/// The file holds all that is needed and is written back with the new
/// signatures; no network. A root that is complete is put in force in this
/// folder of keys if it has the one before.
#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    /// The proposal
    file: PathBuf,
    #[command(flatten)]
    keys: KeysArgs,
}

#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    role: &'static str,
    version: u64,
    builds_on_root_sha256: String,
    says: Vec<String>,
    signed_by: Vec<String>,
    complete: bool,
    in_force: bool,
    missing: Vec<Lacking>,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact(
            "proposal",
            format!("{} version {}", self.role, self.version),
        )?;
        out.fact("builds on", format!("root {}", self.builds_on_root_sha256))?;
        for line in &self.says {
            out.fact("says", line)?;
        }
        for id in &self.signed_by {
            out.fact("signed with", id)?;
        }
        for lacking in &self.missing {
            out.fact("missing", lacking.text())?;
        }
        let state = match (self.complete, self.in_force, self.role) {
            (true, true, _) => "complete, in force here",
            (true, false, "root") => {
                "complete; `pytheas keys sign` where the root before it is puts it in force"
            }
            (true, false, _) => "complete; `pytheas keys publish --proposal FILE` puts it in force",
            (false, ..) => "not complete",
        };
        out.fact("state", state)
    }
}

/// Signs it.
pub(super) fn run(args: &SignArgs, context: &Context) -> miette::Result<()> {
    let signing: Signing = proposal::sign_file(&args.file, &args.keys.dir(), &ask)?;
    context.show(&Shown {
        file: args.file.clone(),
        role: signing.role,
        version: signing.version,
        builds_on_root_sha256: signing.root_sha256,
        says: signing.says,
        signed_by: signing.signed_by,
        complete: signing.missing.is_empty(),
        in_force: signing.in_force,
        missing: Lacking::of(&signing.missing),
    })
}
