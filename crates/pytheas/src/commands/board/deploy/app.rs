//! What goes to a board: a project built, a folder compiled, an image, or a published release.

use std::path::Path;

use miette::{IntoDiagnostic, WrapErr};
use pytheas_board::{deploy::Files, link::Facts, romfs};
use pytheas_build::{
    BuildRequest,
    micropython::{
        CompileOptions, Compiler, IMAGE_FILE, MpyCross, build_board, compile_tree, is_board_form,
    },
};
use pytheas_project::{Connectivity, Environment, Project};
use pytheas_release::ReleaseRef;

use super::DeployArgs;
use crate::{commands::build, context::Context};

/// What goes to the board.
#[derive(Clone)]
pub(super) enum App {
    Files(Files),
    Image(Vec<u8>),
}

/// What goes to the board, and whether it is known to import the board's package.
pub(super) fn app(
    args: &DeployArgs,
    facts: &Facts,
    context: &Context,
) -> miette::Result<(App, bool)> {
    let plain = |app| (app, false);
    let what = &args.what;
    let read = |path: &Path| {
        std::fs::read(path)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot read `{}`", path.display()))
    };
    if let Some(repo) = &args.repo {
        return published(repo, &what.to_string_lossy(), facts)
            .map(App::Image)
            .map(plain);
    }
    let data = std::fs::metadata(what)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", what.display()))?;
    if data.is_file() {
        return read(what).map(App::Image).map(plain);
    }
    if what.join(IMAGE_FILE).is_file() {
        return read(&what.join(IMAGE_FILE)).map(App::Image).map(plain);
    }
    if what.join("pyproject.toml").is_file() || args.target.is_some() {
        let project = Project::load(what)?;
        let target = match (&args.target, &project.targets_of_form("micropython")[..]) {
            (Some(target), _) => Some(target.clone()),
            (None, [only]) => Some((*only).to_owned()),
            (None, []) => None,
            (None, several) => {
                return Err(miette::miette!(
                    code = "pytheas::board::which_target",
                    help = "name one with `--target NAME`",
                    "`{}` has several targets for boards: `{}`",
                    what.display(),
                    several.join("`, `")
                ));
            }
        };
        let request = BuildRequest {
            target,
            connectivity: connectivity(args.offline),
            ..BuildRequest::new(project)
        };
        if is_board_form(&request)? {
            return built(request, context);
        }
    }
    if args.source {
        return sources(what).map(App::Files).map(plain);
    }
    compiled(what, facts, args.offline, context)
        .map(App::Files)
        .map(plain)
}

/// The signed image of a published release for this board. Nothing here is trusted: the board
/// verifies the signature itself.
fn published(repo: &Path, release: &str, facts: &Facts) -> miette::Result<Vec<u8>> {
    let none = || {
        miette::miette!(
            code = "pytheas::board::no_release",
            help = "`pytheas releases` lists those of a hub; `pytheas publish DIR --repo REPO` publishes one",
            "`{}` has no release `{release}` with an image for `{}`",
            repo.display(),
            facts.release_platform()
        )
    };
    let reference: ReleaseRef = release
        .parse()
        .into_diagnostic()
        .wrap_err_with(|| format!("`{release}` names no release: write `NAME@VERSION`"))?;
    let folder = repo
        .join("targets")
        .join(reference.name.as_str())
        .join(reference.version.to_string());
    let mut newest: Option<BoardImage> = None;
    for platform in [facts.release_platform(), "micropython-any".to_owned()] {
        let entries = std::fs::read_dir(folder.join(platform)).into_iter();
        for entry in entries.flatten().flatten() {
            let text = std::fs::read(entry.path()).into_diagnostic()?;
            let document: Published = serde_json::from_slice(&text)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot read `{}`", entry.path().display()))?;
            let counter = newest.as_ref().map_or(0, |image| image.counter);
            newest = document
                .board
                .filter(|image| image.counter >= counter)
                .or(newest);
        }
    }
    let hash = newest.ok_or_else(none)?.sha256;
    let path = repo
        .join("blobs")
        .join(&hash[..2.min(hash.len())])
        .join(&hash);
    let image = std::fs::read(&path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", path.display()))?;
    Ok(image)
}

/// What is read of a release document.
#[derive(serde::Deserialize)]
struct Published {
    board: Option<BoardImage>,
}

#[derive(serde::Deserialize)]
struct BoardImage {
    sha256: String,
    counter: u32,
}

/// The folder compiled while the board is asked, as for a board that takes no native code. None when
/// it is no such folder, the compiler must be fetched first, or it does not compile like that.
pub(super) fn early(args: &DeployArgs) -> Option<Files> {
    let what = &args.what;
    let other = args.repo.is_some() || args.target.is_some() || args.source;
    if other || what.join("pyproject.toml").exists() || what.join(IMAGE_FILE).exists() {
        return None;
    }
    let environment = Environment::current();
    let found = MpyCross::find(&environment, Connectivity::Offline, &|_| {}).ok()?;
    let compiler = Compiler::new(found, &environment);
    let files = compile_tree(what, &compiler, CompileOptions::default()).ok()?;
    let files = for_boards(files);
    (!files.is_empty()).then_some(files)
}

/// Without what only CPython's tools read.
fn for_boards(mut files: Files) -> Files {
    let only_here = |path: &str| {
        let metadata = |part: &str| part.ends_with(".egg-info") || part.ends_with(".dist-info");
        path.ends_with(".pyi") || path.ends_with("py.typed") || path.split('/').any(metadata)
    };
    files.retain(|path, _| !only_here(path.as_str()));
    files
}

fn connectivity(offline: bool) -> Connectivity {
    if offline {
        Connectivity::Offline
    } else {
        Connectivity::Online
    }
}

/// The project's image, built beside everything else.
fn built(request: BuildRequest, context: &Context) -> miette::Result<(App, bool)> {
    let scratch = tempfile::tempdir()
        .into_diagnostic()
        .wrap_err("cannot make a temporary folder")?;
    let request = BuildRequest {
        out: Some(scratch.path().join("tree")),
        ..request
    };
    let progress = context.progress();
    let built = build_board(&request, &|event| build::show(&event, &progress, context))?;
    let image = built.dir.join(IMAGE_FILE);
    let bytes = std::fs::read(&image)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", image.display()))?;
    let imported = |name: &String| name == "pytheas" || name.starts_with("pytheas.");
    let wants_package = built.report.firmware.keys().any(imported);
    Ok((App::Image(bytes), wants_package))
}

/// The folder compiled for this board, each module only when it changed.
fn compiled(dir: &Path, facts: &Facts, offline: bool, context: &Context) -> miette::Result<Files> {
    let compiler = compiler(offline, context)?;
    let options = CompileOptions {
        arch: facts.board_mpy().and_then(|board| board.arch),
        ..CompileOptions::default()
    };
    let files = for_boards(compile_tree(dir, &compiler, options)?);
    if files.is_empty() {
        return Err(nothing_in(dir));
    }
    Ok(files)
}

/// The compiler for boards.
pub(in crate::commands::board) fn compiler(
    offline: bool,
    context: &Context,
) -> miette::Result<Compiler> {
    let environment = Environment::current();
    let progress = context.progress();
    let observer = |event| build::show(&event, &progress, context);
    let found = MpyCross::find(&environment, connectivity(offline), &observer)?;
    Ok(Compiler::new(found, &environment))
}

/// The folder as it is, without what begins with a dot and caches.
fn sources(dir: &Path) -> miette::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = || format!("cannot read `{}`", folder.display());
        for entry in std::fs::read_dir(&folder)
            .into_diagnostic()
            .wrap_err_with(failed)?
        {
            let path = entry.into_diagnostic().wrap_err_with(failed)?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            if name.is_none_or(|name| name.starts_with('.') || name == "__pycache__") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy();
            let place = romfs::path(inside.as_bytes())?;
            let content = std::fs::read(&path)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot read `{}`", path.display()))?;
            files.insert(place, content);
        }
    }
    if files.is_empty() {
        return Err(nothing_in(dir));
    }
    Ok(files)
}

fn nothing_in(dir: &Path) -> miette::Report {
    miette::miette!(
        code = "pytheas::board::empty",
        help = "name the folder with the app's sources",
        "there is nothing for a board in `{}`",
        dir.display()
    )
}
