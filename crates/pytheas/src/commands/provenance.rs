//! `pytheas provenance`: where a built artifact came from.

mod released;

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::{Context as _, IntoDiagnostic};
use pytheas_build::{Provenance, provenance_path};
use pytheas_release::{Platform, Sha256};
use pytheas_repo::{
    dsse::Envelope,
    keys::{KeyError, RootFile},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::keys::KeysArgs,
    context::Context,
    output::{Paint, Show},
};

/// Subcommands of `pytheas provenance`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProvenanceCommand {
    /// Show from which commit, lock and tools an artifact was built
    Show(ProvenanceArgs),
    /// Check that a statement speaks of exactly this artifact or release
    ///
    /// Compares the tree's id, or the file's SHA-256, with the statement. What
    /// `pytheas build` lays beside an artifact is not signed: that tells mix-ups,
    /// not forgeries. What `pytheas publish` made of it is: with `--repo`, or where
    /// the statement is a DSSE envelope, the targets key's signature is checked, too.
    Verify(ProvenanceArgs),
}

/// An artifact and its statement.
#[derive(Debug, clap::Args)]
pub(crate) struct ProvenanceArgs {
    /// What `pytheas build` made: a folder, or a file; with --repo, a release: `NAME@VERSION`
    artifact: PathBuf,
    /// The statement, or the signed envelope with it [default: ARTIFACT.provenance.json]
    #[arg(long, value_name = "FILE", conflicts_with = "repo")]
    statement: Option<PathBuf>,
    /// The repository of the release: a folder, an object store's URL, or a hub's `/repo`
    #[arg(long, value_name = "DIR|URL")]
    repo: Option<String>,
    /// The platform of the release, where it has several
    #[arg(long, value_name = "PLATFORM", requires = "repo")]
    platform: Option<Platform>,
    /// Write the signed envelope (DSSE) of the release to this file, for others to verify
    #[arg(long, value_name = "FILE", requires = "repo")]
    save: Option<PathBuf>,
    /// The root metadata to trust [default: `root.json` in the folder of the keys]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    keys: KeysArgs,
}

impl ProvenanceArgs {
    /// The root metadata that is trusted.
    fn root(&self) -> Result<RootFile, KeyError> {
        match &self.root {
            Some(file) => RootFile::read(file),
            None => RootFile::load(&self.keys.dir()),
        }
    }
}

/// A statement and how far it can be trusted.
struct Found {
    provenance: Provenance,
    /// Whether the targets key's signature was checked.
    signed: bool,
    /// The id of the tree of the release that it is published with.
    tree: Option<Sha256>,
}

#[derive(Serialize)]
struct Shown {
    verified: bool,
    signed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    statement: Value,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let definition = &self.statement["predicate"]["buildDefinition"];
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let parameters = &definition["externalParameters"];
        let what = format!(
            "{} {}, {} for {}",
            text(&parameters["name"]),
            text(&parameters["version"]),
            text(&parameters["form"]),
            text(&parameters["platform"])
        );
        out.fact("artifact", what)?;
        let all: Vec<&Value> = definition["resolvedDependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        for one in all.iter().filter(|one| one["name"] == "source") {
            let place = one["uri"].as_str().unwrap_or("a repository without remote");
            let dirty = match one["annotations"]["dirty"].as_bool() {
                Some(true) => ", with changes that are not committed",
                _ => "",
            };
            let commit = text(&one["digest"]["gitCommit"]);
            out.fact("source", format!("{place} at {commit}{dirty}"))?;
        }
        let is_lock = |one: &&&Value| {
            one["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("pylock."))
        };
        if let Some(lock) = all.iter().find(is_lock) {
            let sha256 = text(&lock["digest"]["sha256"]);
            out.fact("lock", format!("{}, SHA-256 {sha256}", text(&lock["name"])))?;
        }
        for one in all.iter().filter(|one| one["name"] == "interpreter") {
            out.fact("interpreter", text(&one["uri"]))?;
        }
        out.fact("inputs", all.len())?;
        let builder = &self.statement["predicate"]["runDetails"]["builder"];
        out.fact(
            "built by",
            format!("pytheas {}", text(&builder["version"]["pytheas"])),
        )?;
        if let Some(sha256) = &self.sha256 {
            out.fact("speaks of", format!("this artifact, SHA-256 {sha256}"))?;
        }
        if self.signed {
            out.fact("signed", "by the targets key")?;
        }
        Ok(())
    }
}

/// Shows or checks it.
pub(crate) fn run(command: &ProvenanceCommand, context: &Context) -> miette::Result<()> {
    let (ProvenanceCommand::Show(args) | ProvenanceCommand::Verify(args)) = command;
    let verify = matches!(command, ProvenanceCommand::Verify(_));
    let found = match &args.repo {
        Some(repo) => released::find(repo, args)?,
        None => beside(args, verify)?,
    };
    let sha256 = match (verify, found.tree) {
        (false, _) => None,
        (true, None) => Some(found.provenance.check(&args.artifact)?.to_string()),
        (true, Some(tree)) => {
            let checked = found.provenance.check_sha256(tree, &args.artifact)?;
            Some(checked.to_string())
        }
    };
    context.show(&Shown {
        verified: sha256.is_some(),
        signed: found.signed,
        sha256,
        statement: found.provenance.statement,
    })
}

/// The statement that lies beside an artifact, or is named.
fn beside(args: &ProvenanceArgs, verify: bool) -> miette::Result<Found> {
    let path = args
        .statement
        .clone()
        .unwrap_or_else(|| provenance_path(&args.artifact));
    let envelope = std::fs::read(&path)
        .ok()
        .and_then(|bytes| Envelope::parse(&bytes).ok());
    let Some(envelope) = envelope else {
        return Ok(Found {
            provenance: Provenance::read(&path)?,
            signed: false,
            tree: None,
        });
    };
    let payload = if verify {
        envelope.verify(&args.root()?.signed)?
    } else {
        envelope.payload()?
    };
    Ok(Found {
        provenance: Provenance::parse(&payload, &path)?,
        signed: verify,
        tree: None,
    })
}

/// Writes the envelope for others.
fn save(envelope: &[u8], file: &Path) -> miette::Result<()> {
    pytheas_durable::replace(file, envelope)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", file.display()))
}
