//! `pytheas check`: what a built tree holds against what the project declares and imports, and what
//! its lock lacks on the platforms it is for.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use pytheas_build::{
    BuildRequest, Check, Heavy, PartSize, PlatformGaps, check, heavy_of_lock,
    micropython::is_board_form, platform_gaps, target_platforms, treemap,
};
use pytheas_project::{Connectivity, Project, Pylock};
use pytheas_release::Platform;
use serde::Serialize;

use crate::{
    context::Context,
    exit,
    output::{Paint, Show, bytes},
};

/// Check a project and its built tree: requirements, platforms, sizes
///
/// Of the built tree it reads the source of the app and its packages; nothing
/// is run. Of the lock it tells, for the platform of each target, which
/// packages have no fitting wheel. Without a built tree only the lock is
/// checked. With `--imports` the entry point's imports are carried out and
/// timed instead. Exits with 1 when the app imports what is missing or what only
/// another package's requirements bring in, and when a package cannot be had
/// for a platform.
///
/// Examples: `pytheas build && pytheas check --platform linux-armv7`,
/// `pytheas check --imports`
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The built tree [default: dist/APP of the project]
    dir: Option<PathBuf>,
    /// Folder of the project
    #[arg(long, short = 'C', default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// A target of `[tool.pytheas.target.NAME]`, for boards (`form = "micropython"`)
    #[arg(long, short, value_name = "NAME")]
    target: Option<String>,
    /// With a board's target: measure RAM and instructions of its import, on MicroPython itself
    /// (`PYTHEAS_MICROPYTHON`: a folder with `qemu/firmware.elf`, `unix/micropython`)
    #[arg(long, requires = "target")]
    measure: bool,
    /// With a board's target: use no network
    #[arg(long, requires = "target")]
    offline: bool,
    /// Look for wheels of this platform [default: those of the targets]
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// How many lines the table of sizes has
    #[arg(long, default_value_t = 15, value_name = "N")]
    top: usize,
    /// Write a page with a map of the sizes, which needs no network
    #[arg(long, value_name = "FILE.html")]
    treemap: Option<PathBuf>,
    #[command(flatten)]
    imports: super::check_imports::ImportsArgs,
}

#[derive(Serialize)]
struct Shown {
    /// None when there is no built tree.
    #[serde(flatten)]
    check: Option<Check>,
    /// Of the lock, when there is no built tree.
    #[serde(rename = "heavy", skip_serializing_if = "Option::is_none")]
    heavy_of_lock: Option<Vec<Heavy>>,
    platforms: Vec<PlatformGaps>,
    #[serde(skip)]
    has_lock: bool,
    #[serde(skip)]
    top: usize,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        if let Some(check) = &self.check {
            requirements(check, out)?;
        }
        self.platforms(out)?;
        let heavy = self.check.as_ref().map(|check| &check.heavy);
        show_heavy(heavy.or(self.heavy_of_lock.as_ref()), out)?;
        let Some(check) = &self.check else {
            return out.line(
                "there is no built tree: only the lock was checked; `pytheas build` makes one",
            );
        };
        undecided(check, out)?;
        let rows: Vec<_> = check.sizes.iter().take(self.top).map(row).collect();
        out.table(["PACKAGE", "MODULE", "SIZE", "FILES"], &rows)?;
        out.fact("size", bytes(check.size_bytes))?;
        let unreached = bytes(check.unreached_bytes);
        match check.unreached_bytes {
            0 => out.fact("not reached", "nothing"),
            _ => out.fact(
                "not reached",
                format!("{unreached} of modules; `slim = true` leaves them out"),
            ),
        }
    }
}

impl Shown {
    fn platforms(&self, out: &mut Paint<'_>) -> io::Result<()> {
        if !self.has_lock {
            return out.line("no lock      `pytheas lock` writes one; platforms were not checked");
        }
        let mut rows = Vec::new();
        for found in &self.platforms {
            let weight = match found.wheel_bytes {
                0 => String::new(),
                weight => format!(" ({})", bytes(weight)),
            };
            out.line(format!(
                "platform     {}, Python {}: {} of {} packages have a wheel{weight}",
                found.platform, found.python, found.wheels, found.packages
            ))?;
            rows.extend(found.gaps.iter().map(|gap| {
                let version = gap.version.as_deref().unwrap_or_default();
                [
                    found.platform.to_string(),
                    format!("{} {version}", gap.package).trim_end().to_owned(),
                    gap.kind.as_str().to_owned(),
                    gap.text.clone(),
                ]
            }));
        }
        if rows.is_empty() {
            return Ok(());
        }
        out.table(["PLATFORM", "PACKAGE", "GAP", "WHAT"], &rows)
    }
}

fn requirements(check: &Check, out: &mut Paint<'_>) -> io::Result<()> {
    for missing in &check.missing {
        let (name, by, line) = (&missing.name, &missing.by, missing.line);
        out.line(format!(
            "missing      `{name}`, imported by {by} line {line}"
        ))?;
    }
    if !check.perhaps_missing.is_empty() {
        let all = &check.perhaps_missing;
        let tops = all
            .iter()
            .map(|one| one.name.split('.').next().unwrap_or(&one.name));
        let names: BTreeSet<&str> = tops.collect();
        let by: BTreeSet<&str> = all.iter().map(|one| one.by.as_str()).collect();
        let list: Vec<String> = names
            .iter()
            .take(8)
            .map(|name| format!("`{name}`"))
            .collect();
        let more = match names.len().saturating_sub(list.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (first, count) = (by.first().unwrap_or(&""), by.len());
        let modules = match count {
            1 => format!("`{first}`"),
            _ => format!("{count} modules such as `{first}`"),
        };
        out.line(format!(
            "perhaps      {}{more}: {modules} cannot be imported without; the app imports that only under a condition, or by a name that it makes up",
            list.join(", ")
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
    Ok(())
}

fn show_heavy(heavy: Option<&Vec<Heavy>>, out: &mut Paint<'_>) -> io::Result<()> {
    for heavy in heavy.into_iter().flatten() {
        let mut sizes = Vec::new();
        sizes.extend(
            heavy
                .size_bytes
                .map(|size| format!("{} installed", bytes(size))),
        );
        sizes.extend(
            heavy
                .wheel_bytes
                .map(|size| format!("{} as a wheel", bytes(size))),
        );
        let mut text = format!("heavy        `{}`: {}", heavy.package, sizes.join(", "));
        if !heavy.instead.is_empty() {
            text.push_str(&format!("; instead {}", heavy.instead.join(" or ")));
        }
        if let Some(note) = &heavy.note {
            text.push_str(&format!(": {note}"));
        }
        out.line(text)?;
    }
    Ok(())
}

fn undecided(check: &Check, out: &mut Paint<'_>) -> io::Result<()> {
    for (package, undecided) in &check.undecided {
        let count = match undecided.len() {
            1 => "1 import".to_owned(),
            count => format!("{count} imports"),
        };
        out.line(format!("undecided    {package}: {count}"))?;
        for one in undecided {
            let (file, line) = (one.file.display(), one.line);
            out.line(format!("    {file}:{line} {}", one.call))?;
        }
    }
    if check.undecided.is_empty() {
        return Ok(());
    }
    out.line(
        "    Only running tells what these import. `slim` keeps all modules beside those of packages;\n    \
         name others in `keep` of the target, or in `[[tool.pytheas.rule]]`, and run your tests on the result.",
    )
}

fn row(part: &PartSize) -> [String; 4] {
    [
        part.package.clone(),
        part.module.clone(),
        bytes(part.size_bytes),
        part.files.to_string(),
    ]
}

/// Checks the project for a board, when the target is one's.
fn board(
    args: &CheckArgs,
    project: &Project,
    context: &Context,
) -> miette::Result<Option<ExitCode>> {
    let request = BuildRequest {
        target: args.target.clone(),
        connectivity: if args.offline {
            Connectivity::Offline
        } else {
            Connectivity::Online
        },
        ..BuildRequest::new(project.clone())
    };
    if args.target.is_none() || !is_board_form(&request)? {
        return Ok(None);
    }
    super::build_board::check(&request, args.measure, args.top, context).map(Some)
}

/// Checks it; the exit code says whether something is missing, undeclared or cannot be had.
pub(crate) fn run(args: &CheckArgs, context: &Context) -> miette::Result<ExitCode> {
    let project = Project::load(&args.project)?;
    if let Some(code) = board(args, &project, context)? {
        return Ok(code);
    }
    if args.imports.imports {
        return args
            .imports
            .run(args.dir.as_deref(), project, args.top, context);
    }
    let default = Path::new(&project.dir)
        .join("dist")
        .join(project.name.as_str());
    let dir = match &args.dir {
        Some(dir) => Some(dir.clone()),
        None => Some(default).filter(|dir| dir.is_dir()),
    };
    let check = dir.map(|dir| check(&project, &dir)).transpose()?;
    let platforms = if args.platform.is_empty() {
        target_platforms(&project)
    } else {
        args.platform.clone()
    };
    let python = check.as_ref().and_then(|check| check.python.as_deref());
    let gaps = platform_gaps(&project, &platforms, python)?;
    let lock = Pylock::read(&project.lock_path())?;
    if check.is_none() && lock.is_none() {
        return Err(miette::miette!(
            help = "`pytheas build` makes both, `pytheas lock` the lock only",
            "there is neither a built tree nor a lock of `{}` to check",
            project.name
        ));
    }
    let heavy_of_lock = match (&check, &lock, platforms.first()) {
        (None, Some(lock), Some(platform)) => Some(heavy_of_lock(lock, platform)),
        _ => None,
    };
    let has_failed = check.as_ref().is_some_and(Check::has_failed)
        || gaps
            .iter()
            .any(|found| found.gaps.iter().any(|gap| gap.kind.is_fatal()));
    if let Some(file) = &args.treemap {
        let Some(check) = &check else {
            return Err(miette::miette!(
                help = "run `pytheas build` first",
                "a map of sizes needs a built tree"
            ));
        };
        let page = treemap(project.name.as_str(), check);
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
        heavy_of_lock,
        platforms: gaps,
        has_lock: lock.is_some(),
        top: args.top,
    })?;
    Ok(if has_failed {
        ExitCode::from(exit::USER)
    } else {
        ExitCode::SUCCESS
    })
}
