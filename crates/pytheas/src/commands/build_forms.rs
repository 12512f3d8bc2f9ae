//! What `pytheas build` can give besides a folder: distributions, and a bundle as one file.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::{Context as _, IntoDiagnostic};
use pytheas_build::{BuildRequest, Built, Distributions, OneFile};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show, bytes, duration},
};

#[derive(Serialize)]
struct ShownDistributions<'a> {
    wheel: &'a Path,
    sdist: &'a Path,
    seconds: f64,
}

impl Show for ShownDistributions<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("wheel", self.wheel.display())?;
        out.fact("sdist", self.sdist.display())?;
        let took = std::time::Duration::from_secs_f64(self.seconds);
        out.fact("took", duration(took))
    }
}

/// Shows what the form `wheel` made.
pub(crate) fn show_distributions(made: &Distributions, context: &Context) -> miette::Result<()> {
    context.show(&ShownDistributions {
        wheel: &made.wheel,
        sdist: &made.sdist,
        seconds: made.elapsed.as_secs_f64(),
    })
}

#[derive(Serialize)]
struct ShownFile<'a> {
    name: String,
    version: String,
    platform: String,
    file: &'a Path,
    size_bytes: u64,
    unpacked_bytes: u64,
    tree_id: String,
    warnings: &'a [String],
}

impl Show for ShownFile<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let Self {
            name,
            version,
            platform,
            ..
        } = self;
        out.fact(
            "built",
            format!("{name} {version}, one file for {platform}"),
        )?;
        out.fact("file", self.file.display())?;
        let unpacked = bytes(self.unpacked_bytes);
        out.fact(
            "size",
            format!("{}, {unpacked} unpacked", bytes(self.size_bytes)),
        )?;
        out.fact("tree", &self.tree_id)
    }
}

/// A scratch folder for the tree, and the file: as asked, else `dist/APP.run` in the project.
pub(crate) fn one_file_places(
    request: &BuildRequest,
) -> miette::Result<(tempfile::TempDir, PathBuf)> {
    let scratch = tempfile::tempdir()
        .into_diagnostic()
        .wrap_err("cannot make a folder for temporary files")?;
    let name = request.name.as_ref().unwrap_or(&request.project.name);
    let default = || request.project.dir.join("dist").join(format!("{name}.run"));
    let file = request.out.clone().unwrap_or_else(default);
    Ok((scratch, file))
}

/// Packs the built bundle into `file` and shows it.
pub(crate) fn pack(
    request: &BuildRequest,
    built: &Built,
    file: &Path,
    context: &Context,
) -> miette::Result<()> {
    let progress = context.progress();
    progress.step("compressing");
    let made: OneFile = pytheas_build::one_file_cached(
        &built.dir,
        &built.tree,
        &built.record,
        file,
        Some(&pytheas_project::Environment::current().cache_dir()),
    )?;
    pytheas_build::write_provenance(request, built, Some(&made.path))?;
    drop(progress);
    context.show(&ShownFile {
        name: built.record.name.to_string(),
        version: built.record.version.to_string(),
        platform: built.record.platform.to_string(),
        file: &made.path,
        size_bytes: made.size_bytes,
        unpacked_bytes: made.unpacked_bytes,
        tree_id: made.tree_id.to_string(),
        warnings: &built.warnings,
    })
}
