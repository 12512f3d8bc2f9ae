//! `pytheas artifact upload`: an image for SWUpdate, RAUC or Zephyr, for a rollout to name.

use std::{fs::File, io, path::PathBuf};

use miette::{Context as _, IntoDiagnostic, miette};
use pytheas_api::ArtifactFile;
use pytheas_release::{Name, Version};
use serde::Serialize;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
    output::{Paint, Show, bytes},
};

/// Upload a plain file for SWUpdate, RAUC or Zephyr
///
/// A rollout then names it: `pytheas rollout start --artifact firmware@7`.
#[derive(Debug, clap::Args)]
pub(crate) struct UploadArgs {
    /// The file
    file: PathBuf,
    /// Name of the software
    #[arg(long)]
    name: Name,
    /// Its version
    #[arg(long)]
    version: Version,
    /// DDI's kind of part: `os`, `bApp`, …
    #[arg(long, default_value = "os")]
    part: Name,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Uploaded(ArtifactFile);

impl Show for Uploaded {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("file", &self.0.filename)?;
        out.fact("size", bytes(self.0.size_bytes))?;
        out.fact("sha256", &self.0.sha256)
    }
}

/// Uploads it.
pub(super) fn run(args: &UploadArgs, context: &Context) -> miette::Result<()> {
    let name = args
        .file
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            miette!(
                "`{}` has no name that a device could be given",
                args.file.display()
            )
        })?;
    let file = File::open(&args.file)
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(file),
        })
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", args.file.display()))?;
    let path = format!(
        "artifacts/{}/{}/{}?part={}",
        encoded(args.name.as_str()),
        encoded(args.version.as_str()),
        encoded(name),
        encoded(args.part.as_str())
    );
    context.show(&Uploaded(HubClient::new(&args.hub)?.upload(&path, file)?))
}
