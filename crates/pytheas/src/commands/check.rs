//! `pytheas check`: what a built tree holds against what the project declares and imports.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use pytheas_build::{Check, PartSize, check, treemap};
use pytheas_project::Project;
use serde::Serialize;

use crate::{
    context::Context,
    exit,
    output::{Paint, Show, bytes},
};

/// Check a built tree: missing, undeclared and unused requirements, sizes
///
/// Reads the source of the app and its packages in the built tree; nothing
/// is run. Exits with 1 when the app imports what is missing, or what only
/// another package's requirements bring in.
///
/// Example: `pytheas build && pytheas check`
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The built tree [default: dist/APP of the project]
    dir: Option<PathBuf>,
    /// Folder of the project
    #[arg(long, short = 'C', default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// How many lines the table of sizes has
    #[arg(long, default_value_t = 15, value_name = "N")]
    top: usize,
    /// Write a page with a map of the sizes, which needs no network
    #[arg(long, value_name = "FILE.html")]
    treemap: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    check: Check,
    #[serde(skip)]
    top: usize,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let check = &self.check;
        for missing in &check.missing {
            let (name, by, line) = (&missing.name, &missing.by, missing.line);
            out.line(format!(
                "missing      `{name}`, imported by {by} line {line}"
            ))?;
        }
        for undeclared in &check.undeclared {
            out.line(format!(
                "undeclared   `{}`, imported by {} line {}: require `{}`",
                undeclared.module, undeclared.by, undeclared.line, undeclared.package
            ))?;
        }
        for name in &check.unused {
            out.line(format!(
                "unused       `{name}` is required, but nothing reaches it"
            ))?;
        }
        for heavy in &check.heavy {
            let size = bytes(heavy.size_bytes);
            out.line(format!(
                "heavy        `{}` has {size}: {}",
                heavy.package, heavy.instead
            ))?;
        }
        for undecided in &check.undecided {
            out.line(format!(
                "undecided    {}:{} {}",
                undecided.file.display(),
                undecided.line,
                undecided.call
            ))?;
        }
        let rows: Vec<_> = check.sizes.iter().take(self.top).map(row).collect();
        out.table(["PACKAGE", "MODULE", "SIZE", "FILES"], &rows)?;
        out.fact("size", bytes(check.size_bytes))?;
        out.fact(
            "not reached",
            format!(
                "{} of modules; `slim = true` leaves them out",
                bytes(check.unreached_bytes)
            ),
        )
    }
}

fn row(part: &PartSize) -> [String; 4] {
    [
        part.package.clone(),
        part.module.clone(),
        bytes(part.size_bytes),
        part.files.to_string(),
    ]
}

/// Checks it; the exit code says whether something is missing or undeclared.
pub(crate) fn run(args: &CheckArgs, context: &Context) -> miette::Result<ExitCode> {
    let project = Project::load(&args.project)?;
    let dir = args.dir.clone().unwrap_or_else(|| {
        Path::new(&project.dir)
            .join("dist")
            .join(project.name.as_str())
    });
    let check = check(&project, &dir)?;
    let has_failed = check.has_failed();
    if let Some(file) = &args.treemap {
        let page = treemap(project.name.as_str(), &check);
        pytheas_durable::replace(file, page.as_bytes()).map_err(|error| {
            miette::miette!(
                help = "check that its folder exists and may be written",
                "cannot write `{}`: {error}",
                file.display()
            )
        })?;
    }
    context.show(&Shown {
        check,
        top: args.top,
    })?;
    Ok(if has_failed {
        ExitCode::from(exit::USER)
    } else {
        ExitCode::SUCCESS
    })
}
