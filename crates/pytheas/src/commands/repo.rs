//! `pytheas repo`: looking after a repository.

use std::{io, path::PathBuf, time::Duration};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use miette::{Context as _, IntoDiagnostic};
use pytheas_repo::{
    garbage::{self, Found, Options},
    store::Store,
};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    Gc(GcArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &RepoCommand, context: &Context) -> miette::Result<()> {
    match command {
        RepoCommand::Gc(args) => gc(args, context),
    }
}

/// Find what no release needs any more, and with --yes remove it
///
/// What publishes left that were cut off, old snapshots, releases that were
/// taken back, deltas of theirs. What any listed release needs stays, and so
/// does whatever is younger than --min-age: somebody may be publishing.
#[derive(Debug, clap::Args)]
pub(crate) struct GcArgs {
    /// The repository: a folder or an object store's URL (a hub's: its DATA/repo, on its machine)
    #[arg(long, env = "PYTHEAS_REPO", value_name = "DIR|URL")]
    repo: String,
    /// Trust this root metadata [default: the repository's first]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Leave what was written within this time; proposals (`publish --propose`) wait no longer
    #[arg(long, default_value = "30d", value_parser = age, value_name = "DURATION")]
    min_age: SignedDuration,
    /// Remove it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would be removed (this is the default)
    #[arg(long)]
    dry_run: bool,
}

fn age(text: &str) -> Result<SignedDuration, String> {
    pytheas_release::parse_duration_ms(text)
        .and_then(|ms| SignedDuration::try_from(Duration::from_millis(ms)).ok())
        .ok_or_else(|| format!("`{text}` is not a duration such as `12h`, `30d`"))
}

#[derive(Serialize)]
struct Shown {
    removed: bool,
    garbage_files: usize,
    garbage_bytes: u64,
    garbage: Vec<ShownFile>,
    releases: usize,
    kept_files: usize,
    kept_bytes: u64,
    young_files: usize,
    young_bytes: u64,
}

#[derive(Serialize)]
struct ShownFile {
    path: String,
    size_bytes: u64,
    written: String,
}

impl Shown {
    fn of(found: Found) -> Self {
        Self {
            removed: found.removed,
            garbage_files: found.garbage.len(),
            garbage_bytes: found.garbage_bytes(),
            releases: found.releases,
            kept_files: found.kept,
            kept_bytes: found.kept_bytes,
            young_files: found.young,
            young_bytes: found.young_bytes,
            garbage: found
                .garbage
                .into_iter()
                .map(|file| ShownFile {
                    path: file.path,
                    size_bytes: file.size_bytes,
                    written: file.written.to_string(),
                })
                .collect(),
        }
    }
}

fn files(count: usize, size_bytes: u64) -> String {
    let what = if count == 1 { "file" } else { "files" };
    format!("{count} {what}, {}", bytes(size_bytes))
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for file in &self.garbage {
            out.line(format!("{}  {}", file.path, bytes(file.size_bytes)))?;
        }
        let verb = if self.removed { "removed" } else { "garbage" };
        out.fact(verb, files(self.garbage_files, self.garbage_bytes))?;
        out.fact("needed", files(self.kept_files, self.kept_bytes))?;
        if self.young_files > 0 {
            out.fact("too young", files(self.young_files, self.young_bytes))?;
        }
        if !self.removed && self.garbage_files > 0 {
            out.line("Nothing was removed; `--yes` does it.")?;
        }
        Ok(())
    }
}

fn gc(args: &GcArgs, context: &Context) -> miette::Result<()> {
    if !args.repo.contains("://") && !std::path::Path::new(&args.repo).is_dir() {
        miette::bail!(
            help = "a hub's repository is the folder `repo` in its data directory",
            "there is no folder `{}`",
            args.repo
        );
    }
    let root = args
        .root
        .as_ref()
        .map(|path| {
            std::fs::read(path)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot read the root metadata `{}`", path.display()))
        })
        .transpose()?;
    let store = Store::open(&args.repo, None)?;
    let options = Options {
        now: Timestamp::now(),
        min_age: args.min_age,
        remove: args.yes,
    };
    let progress = context.progress();
    progress.step(format!("looking through the repository in {store}"));
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start")?;
    let found = runtime.block_on(garbage::collect(&store, root.as_deref(), &options))?;
    drop(progress);
    context.show(&Shown::of(found))
}
