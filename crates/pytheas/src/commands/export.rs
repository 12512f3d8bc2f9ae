//! `pytheas export`: a part of a repository as one file, for devices without a network.

use std::{io, path::PathBuf, str::FromStr};

use jiff::Timestamp;
use miette::{Context as _, IntoDiagnostic};
use pytheas_release::{Name, Platform, Version};
use pytheas_repo::{
    export::{Exported, Selection, export},
    store::Store,
};
use serde::Serialize;

use crate::{
    commands::publish::stored_token,
    context::Context,
    output::{Paint, Show, bytes},
};

/// Make one file for a USB stick from a repository
///
/// It holds the signed metadata, deltas for the versions that have one, and
/// all content for every other device; `pytheas-agent apply FILE` installs
/// from it with the same checks as over the network. Without RELEASE: the
/// newest release of every app.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// What to export: `greenhouse@1.1.0`, or `greenhouse` for its newest release
    #[arg(value_name = "RELEASE")]
    releases: Vec<Wanted>,
    /// The repository: a folder, an object store's URL, or a hub's `/repo`
    #[arg(long, env = "PYTHEAS_REPO", value_name = "DIR|URL")]
    repo: String,
    /// Token for a hub's `/repo` [default: what `pytheas login` stored]
    #[arg(
        long,
        env = "PYTHEAS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// Trust this certificate authority (PEM) of a hub besides the well-known ones
    #[arg(long, env = "PYTHEAS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trust this root metadata [default: the repository's first; the device checks with its own]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Only for this platform, e.g. `linux-aarch64`; may be repeated [default: all of the release]
    #[arg(long, visible_alias = "target", value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Only the deltas from these versions, e.g. `--from 1.0.0`; may be repeated [default: all]
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    from: Vec<Version>,
    /// Where to write it [default: NAME-VERSION.pytheas, or releases.pytheas for several]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A release, or the newest of an app.
#[derive(Debug, Clone)]
struct Wanted(Name, Option<Version>);

impl FromStr for Wanted {
    type Err = pytheas_release::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('@') {
            Some((name, version)) => Self(name.parse()?, Some(version.parse()?)),
            None => Self(text.parse()?, None),
        })
    }
}

#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    size_bytes: u64,
    good_until: String,
    releases: Vec<ShownRelease>,
}

#[derive(Serialize)]
struct ShownRelease {
    release: String,
    platform: String,
    target: String,
    content_bytes: u64,
    deltas: Vec<ShownDelta>,
    without_delta: Vec<String>,
}

#[derive(Serialize)]
struct ShownDelta {
    from: String,
    size_bytes: u64,
}

impl Shown {
    fn of(exported: Exported) -> Self {
        let releases = exported.releases.into_iter().map(|release| ShownRelease {
            release: release.reference.to_string(),
            platform: release.platform.to_string(),
            target: release.target,
            content_bytes: release.content_bytes,
            deltas: release
                .deltas
                .into_iter()
                .map(|(from, size_bytes)| ShownDelta { from, size_bytes })
                .collect(),
            without_delta: release
                .without_delta
                .iter()
                .map(ToString::to_string)
                .collect(),
        });
        Self {
            file: exported.path,
            size_bytes: exported.size_bytes,
            good_until: exported.expires.to_string(),
            releases: releases.collect(),
        }
    }
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("file", self.file.display())?;
        out.fact("size", bytes(self.size_bytes))?;
        out.fact("good until", &self.good_until)?;
        for release in &self.releases {
            out.fact(
                "release",
                format!("{} for {}", release.release, release.platform),
            )?;
            out.fact("content", bytes(release.content_bytes))?;
            for delta in &release.deltas {
                let size = bytes(delta.size_bytes);
                out.fact("delta", format!("from {}: {size}", delta.from))?;
            }
            for version in &release.without_delta {
                out.fact("no delta", format!("from {version}: takes the content"))?;
            }
        }
        Ok(())
    }
}

/// Makes it.
pub(crate) fn run(args: &ExportArgs, context: &Context) -> miette::Result<()> {
    let token = match &args.token {
        Some(token) => Some(token.clone()),
        None => stored_token(&args.repo)?,
    };
    let read = |what: &str, path: &PathBuf| {
        std::fs::read(path)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot read the {what} `{}`", path.display()))
    };
    let ca = args
        .ca
        .as_ref()
        .map(|path| read("certificates", path))
        .transpose()?;
    let root = args
        .root
        .as_ref()
        .map(|path| read("root metadata", path))
        .transpose()?;
    if !args.repo.contains("://") && !std::path::Path::new(&args.repo).is_dir() {
        miette::bail!(
            help = "`pytheas publish --repo` makes one",
            "there is no folder `{}`",
            args.repo
        );
    }
    let store = Store::open_trusting(&args.repo, token.as_deref(), ca.as_deref())?;
    let selection = Selection {
        releases: args
            .releases
            .iter()
            .map(|wanted| (wanted.0.clone(), wanted.1.clone()))
            .collect(),
        platforms: args.platform.clone(),
        from: (!args.from.is_empty()).then(|| args.from.clone()),
    };
    let out = args
        .output
        .clone()
        .unwrap_or_else(|| match &args.releases[..] {
            [Wanted(name, Some(version))] => format!("{name}-{version}.pytheas").into(),
            [Wanted(name, None)] => format!("{name}.pytheas").into(),
            _ => "releases.pytheas".into(),
        });
    let progress = context.progress();
    progress.step(format!("reading the repository in {store}"));
    let mut told = u64::MAX;
    let copying = {
        let progress = progress.clone();
        move |done: u64, total: u64| {
            let percent = done * 100 / total.max(1);
            if percent != told {
                told = percent;
                progress.detail(format!("copying {}: {percent} %", bytes(total)));
            }
        }
    };
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start")?;
    let exported = runtime.block_on(export(
        &store,
        root.as_deref(),
        &selection,
        &out,
        Timestamp::now(),
        copying,
    ))?;
    drop(progress);
    context.show(&Shown::of(exported))
}
