//! `pytheas sbom`: the bill of materials of a built tree.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use miette::IntoDiagnostic;

/// Print the bill of materials of a built tree (CycloneDX 1.6 JSON)
///
/// Every bundle carries it as `sbom.cdx.json`, covered by the signature of
/// the tree: the app, its packages with licences and hashes, the
/// interpreter, and shared libraries. A tree without one is listed afresh.
///
/// Example: `pytheas sbom dist/greenhouse > greenhouse.cdx.json`
#[derive(Debug, clap::Args)]
pub(crate) struct SbomArgs {
    /// The built tree [default: this folder, or dist/APP of the project in it]
    dir: Option<PathBuf>,
}

/// Prints it; the format is JSON with and without `--json`.
pub(crate) fn run(args: &SbomArgs) -> miette::Result<()> {
    let bytes = pytheas_build::sbom(&super::built_tree::of(args.dir.as_deref(), ".".as_ref()))?;
    match io::stdout().lock().write_all(&bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.into_diagnostic(),
    }
}
