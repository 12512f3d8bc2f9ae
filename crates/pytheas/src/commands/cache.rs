//! `pytheas cache`: what the cache holds, and making it smaller.

use std::{io, time::Duration};

use clap::Subcommand;
use jiff::Timestamp;
use pytheas_build::{CacheInfo, Collect, Collected, cache_info, collect_cache, parse_size};
use pytheas_project::Environment;
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show, bytes, span},
};

/// Verbs on the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show where the cache is, and how large each part of it
    ///
    /// `run` and `venvs` belong to apps on this machine: trees that one-file
    /// bundles unpacked, and environments that wheelhouses made.
    Info,
    Prune(PruneArgs),
    Clear(ClearArgs),
}

/// Remove what was not used for long
///
/// Everything in the cache can be made or fetched again. What processes use
/// stays; while a build works, nothing is removed.
///
/// Example: `pytheas cache prune --older-than 14d --max-size 5GB`
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Remove what was not used for this time
    #[arg(long, default_value = "60d", value_parser = age, value_name = "DURATION")]
    older_than: Duration,
    /// Then remove the least recently used of builds' parts until their rest is no larger
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    max_size: Option<u64>,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Remove all of the cache, or the named parts of it
///
/// Apps' parts (`run`, `venvs`) go only when they are named, and of those
/// what no process uses.
#[derive(Debug, clap::Args)]
pub(crate) struct ClearArgs {
    /// Parts, as `pytheas cache info` names them [default: all of builds]
    parts: Vec<String>,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    pytheas_release::parse_duration_ms(text)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration such as `12h`, `30d`"))
}

#[derive(Serialize)]
struct ShownInfo {
    #[serde(flatten)]
    info: CacheInfo,
    #[serde(skip)]
    now: i64,
}

impl Show for ShownInfo {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self
            .info
            .parts
            .iter()
            .map(|part| {
                let used = part.used.filter(|_| part.entries > 0);
                [
                    part.name.clone(),
                    bytes(part.size_bytes),
                    part.entries.to_string(),
                    used.map_or_else(String::new, |used| {
                        format!("{} ago", span((self.now - used).max(0) * 1000))
                    }),
                    part.what.clone(),
                ]
            })
            .collect();
        out.table(["PART", "SIZE", "ENTRIES", "USED", "WHAT"], &rows)?;
        out.fact("cache", self.info.dir.display())?;
        for part in &self.info.parts {
            if !part.dir.starts_with(&self.info.dir) {
                out.fact(&part.name, part.dir.display())?;
            }
        }
        out.fact("size", bytes(self.info.size_bytes))
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct ShownCollected(Collected);

impl Show for ShownCollected {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let done = &self.0;
        for path in &done.in_use {
            out.line(format!("in use       {}", path.display()))?;
        }
        let word = if done.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let count = done.removed.len();
        out.fact(
            word,
            format!("{} in {count} entries", bytes(done.removed_bytes)),
        )?;
        out.fact("stays", bytes(done.kept_bytes))
    }
}

/// Runs the verb.
pub(crate) fn run(command: &CacheCommand, context: &Context) -> miette::Result<()> {
    let environment = Environment::current();
    let now = Timestamp::now().as_second();
    let (what, dry_run) = match command {
        CacheCommand::Info => {
            let info = cache_info(&environment)?;
            return context.show(&ShownInfo { info, now });
        }
        CacheCommand::Prune(args) => {
            let what = Collect::Unused {
                older_than: args.older_than,
                max_bytes: args.max_size,
            };
            (what, args.dry_run)
        }
        CacheCommand::Clear(args) => (Collect::Parts(args.parts.clone()), args.dry_run),
    };
    let done = collect_cache(&environment, &what, now, dry_run)?;
    context.show(&ShownCollected(done))
}
