//! `pytheas publish --index URL`: wheels and source distributions to a package index.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use pytheas_build::{Credentials, Given, Sending, UploadFile, UploadTarget, Uploaded};
use pytheas_project::{Environment, http::Http};
use serde::Serialize;
use url::Url;

use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// Flags of uploads to a package index.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --index")]
pub(crate) struct IndexArgs {
    /// Upload wheels and source distributions to this package index instead: its address of uploads
    #[arg(long, value_name = "URL")]
    pub(crate) index: Option<Url>,
    /// More files; with none at all, those in `dist`
    #[arg(value_name = "FILE", requires = "index")]
    files: Vec<PathBuf>,
    /// The index's simple API, where what is there is looked up [default: `simple/` below --index]
    #[arg(long, env = "UV_PUBLISH_CHECK_URL", value_name = "URL")]
    check_url: Option<Url>,
    /// User of the index; a token (`--token`, PYTHEAS_INDEX_TOKEN, UV_PUBLISH_TOKEN) needs none
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The user's password [default: from TWINE_PASSWORD or netrc]
    #[arg(
        long,
        env = "PYTHEAS_INDEX_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    password: Option<String>,
    /// Send the attestations (PEP 740) that lie beside each file as `FILE.*.attestation`
    #[arg(long, requires = "index")]
    attestations: bool,
    /// Say what would be uploaded, and upload nothing
    #[arg(long)]
    dry_run: bool,
}

/// Nothing to upload.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("there is nothing to upload in `dist`")]
#[diagnostic(
    code(pytheas::upload::nothing),
    help("build with `pytheas build --form wheel`, or name the files")
)]
struct Nothing;

#[derive(Serialize)]
struct Shown {
    index: String,
    files: Vec<ShownFile>,
}

#[derive(Serialize)]
struct ShownFile {
    file: String,
    size_bytes: u64,
    sha256: String,
    outcome: &'static str,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for file in &self.files {
            let what = match file.outcome {
                "uploaded" => "uploaded",
                "there-before" => "is there",
                _ => "would go",
            };
            out.fact(what, format!("{} ({})", file.file, bytes(file.size_bytes)))?;
        }
        Ok(())
    }
}

/// Uploads them, in order; the first failure ends it.
pub(crate) fn run(
    index: &Url,
    first: Option<&PathBuf>,
    args: &IndexArgs,
    token: Option<&String>,
    context: &Context,
) -> miette::Result<()> {
    let mut paths: Vec<PathBuf> = first.into_iter().chain(&args.files).cloned().collect();
    if paths.is_empty() {
        paths = in_dist();
    }
    if paths.is_empty() {
        return Err(Nothing.into());
    }
    // With `dist/*`, attestations are named beside what they are for.
    // What lies beside distributions, and `dist/*` names as well.
    paths.retain(|path| {
        let name = path.to_string_lossy();
        !name.ends_with(".attestation") && !name.ends_with(".provenance.json")
    });
    let mut files = paths
        .iter()
        .map(|path| UploadFile::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    if args.attestations {
        for file in &mut files {
            let found = pytheas_build::attestations_of(&file.path, &file.sha256)?;
            file.attest(&found);
        }
    }
    let environment = Environment::current();
    // A hub's token in the environment is not for package indexes.
    let hub_token = environment.get("PYTHEAS_TOKEN");
    let given = Given {
        token: token
            .filter(|token| Some(token.as_str()) != hub_token)
            .cloned(),
        username: args.username.clone(),
        password: args.password.clone(),
    };
    let credentials = Credentials::find(&given, index, &environment);
    let http = Http::new(&environment);
    let target = UploadTarget {
        url: index,
        check: args.check_url.as_ref(),
        credentials: credentials.as_ref(),
        http: &http,
        pauses: pytheas_build::UPLOAD_PAUSES,
    };
    let sending = if args.dry_run {
        Sending::Dry
    } else {
        Sending::Real
    };
    let progress = context.progress();
    let mut shown = Shown {
        index: without_credentials(index),
        files: Vec::new(),
    };
    for file in &files {
        progress.step(format!("{} ({})", file.file_name, bytes(file.size_bytes())));
        let outcome = match target.upload(file, sending)? {
            Uploaded::New => "uploaded",
            Uploaded::Before => "there-before",
            Uploaded::Would => "would-upload",
        };
        shown.files.push(ShownFile {
            file: file.file_name.clone(),
            size_bytes: file.size_bytes(),
            sha256: file.sha256.to_string(),
            outcome,
        });
    }
    drop(progress);
    context.show(&shown)
}

fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for addresses that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// The distributions in `dist`, wheels first.
fn in_dist() -> Vec<PathBuf> {
    let children = std::fs::read_dir("dist").into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = children
        .map(|child| child.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".whl") || name.ends_with(".tar.gz")
        })
        .collect();
    paths.sort_by_key(|path| {
        (
            path.extension().is_some_and(|end| end == "gz"),
            path.clone(),
        )
    });
    paths
}
