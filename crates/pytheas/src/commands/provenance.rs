//! `pytheas provenance`: where a built artifact came from.

use std::{io, path::PathBuf};

use pytheas_build::{Provenance, provenance_path};
use serde::Serialize;
use serde_json::Value;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Subcommands of `pytheas provenance`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProvenanceCommand {
    /// Show from which commit, lock and tools an artifact was built
    Show(ProvenanceArgs),
    /// Check that a statement speaks of exactly this artifact
    ///
    /// Compares the tree's id, or the file's SHA-256, with the statement. The
    /// statement is not signed: this tells mix-ups, not forgeries.
    Verify(ProvenanceArgs),
}

/// An artifact and its statement.
#[derive(Debug, clap::Args)]
pub(crate) struct ProvenanceArgs {
    /// What `pytheas build` made: a folder, or a file of `--one-file`
    artifact: PathBuf,
    /// The statement [default: ARTIFACT.provenance.json]
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown {
    verified: bool,
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
        Ok(())
    }
}

/// Shows or checks it.
pub(crate) fn run(command: &ProvenanceCommand, context: &Context) -> miette::Result<()> {
    let (ProvenanceCommand::Show(args) | ProvenanceCommand::Verify(args)) = command;
    let path = args
        .statement
        .clone()
        .unwrap_or_else(|| provenance_path(&args.artifact));
    let provenance = Provenance::read(&path)?;
    let sha256 = match command {
        ProvenanceCommand::Show(_) => None,
        ProvenanceCommand::Verify(_) => Some(provenance.check(&args.artifact)?.to_string()),
    };
    context.show(&Shown {
        verified: sha256.is_some(),
        sha256,
        statement: provenance.statement,
    })
}
