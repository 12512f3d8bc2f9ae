//! `pytheas traceback`: a board's traceback led back to the sources of its release.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use miette::{Context as _, IntoDiagnostic as _};
use pytheas_build::micropython::read_lines;
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Lead a board's traceback back to the source lines of its release
///
/// Reads a traceback (or a whole log) and writes it with the files as the
/// project has them; frames of modules that were built without line numbers
/// (`optimize = 3`) get the lines they can be on.
///
/// Example: `pytheas board logs | pytheas traceback dist/node`
#[derive(Debug, clap::Args)]
pub(crate) struct TracebackArgs {
    /// The folder `pytheas build` made of the release that the board runs
    release: PathBuf,
    /// The text [default: standard input]
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Mapped {
    text: String,
}

impl Show for Mapped {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line(self.text.trim_end_matches('\n'))
    }
}

/// Reads, maps and shows.
pub(crate) fn run(args: &TracebackArgs, context: &Context) -> miette::Result<()> {
    let lines = read_lines(&args.release)?;
    let mut bytes = Vec::new();
    match &args.file {
        Some(file) => {
            bytes = std::fs::read(file)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot read `{}`", file.display()))?;
        }
        None => {
            io::stdin()
                .read_to_end(&mut bytes)
                .into_diagnostic()
                .wrap_err("cannot read standard input")?;
        }
    }
    let text = lines.map_traceback(&String::from_utf8_lossy(&bytes));
    context.show(&Mapped { text })
}
