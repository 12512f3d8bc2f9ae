//! The form `micropython`: `pytheas build`, `check` and `why` for boards.

use std::{collections::BTreeMap, io, path::Path, process::ExitCode};

use pytheas_build::{
    BuildRequest,
    micropython::{
        BoardBuilt, BoardCheck, Cost, Needed, NotMeasured, REPORT_FILE, Report, build_board,
        check_board,
    },
};
use pytheas_release::BuildRecord;
use serde::Serialize;

use crate::{
    commands::build,
    context::Context,
    exit,
    output::{Paint, Show, bytes, duration},
};

#[derive(Serialize)]
struct Shown<'a> {
    dir: &'a Path,
    tree_id: String,
    image_bytes: u64,
    modules: usize,
    dropped: usize,
    seconds: f64,
    entry: &'a str,
    warnings: &'a [String],
    packages: &'a BTreeMap<String, u64>,
    record: &'a BuildRecord,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let BuildRecord {
            name,
            version,
            platform,
            ..
        } = self.record;
        out.fact(
            "built",
            format!("{name} {version}, an image for {platform}"),
        )?;
        out.fact("image", self.dir.join("app.romfs").display())?;
        out.fact("starts", self.entry)?;
        let packages: Vec<String> = self
            .packages
            .iter()
            .map(|(name, size)| format!("{name} {}", bytes(*size)))
            .collect();
        out.fact(
            "size",
            format!("{} ({})", bytes(self.image_bytes), packages.join(", ")),
        )?;
        out.fact(
            "modules",
            format!(
                "{} shipped, {} files left out; `pytheas check` and {REPORT_FILE} say why",
                self.modules, self.dropped
            ),
        )?;
        out.fact("tree", &self.tree_id)?;
        out.fact(
            "took",
            duration(std::time::Duration::from_secs_f64(self.seconds)),
        )
    }
}

/// Builds and shows it.
pub(crate) fn run(
    request: &BuildRequest,
    check_reproducible: bool,
    context: &Context,
) -> miette::Result<()> {
    let progress = context.progress();
    let built: BoardBuilt = build_board(request, &|event| build::show(&event, &progress, context))?;
    if check_reproducible {
        again(request, &built)?;
        progress.suspend(|| context.note("a second build elsewhere gave the same bytes"));
    }
    drop(progress);
    let modules = built.report.kept.iter();
    context.show(&Shown {
        dir: &built.dir,
        tree_id: built.tree_id.to_string(),
        image_bytes: built.report.image_bytes,
        modules: modules.filter(|kept| kept.module.is_some()).count(),
        dropped: built.report.dropped.len(),
        seconds: built.elapsed.as_secs_f64(),
        entry: &built.manifest.entry,
        warnings: &built.warnings,
        packages: &built.report.packages,
        record: &built.record,
    })
}

/// Builds a second time, elsewhere and with an empty cache of compiled modules.
fn again(request: &BuildRequest, first: &BoardBuilt) -> miette::Result<()> {
    let scratch = tempfile::tempdir()
        .map_err(|error| miette::miette!("cannot make a folder for temporary files: {error}"))?;
    let request = BuildRequest {
        out: Some(scratch.path().join("again")),
        ..request.clone()
    };
    let second = build_board(&request, &|_| {})?;
    if second.tree_id == first.tree_id {
        return Ok(());
    }
    Err(miette::miette!(
        help = "compare `app.romfs` of two builds; a folder among the dependencies may have changed meanwhile",
        "a second build gave other bytes"
    ))
}

#[derive(Serialize)]
struct ShownCheck<'a> {
    platform: String,
    entry: &'a str,
    costs: &'a [Cost],
    not_measured: &'a [NotMeasured],
    over_budget: &'a [String],
    warnings: &'a [String],
    report: &'a Report,
    #[serde(skip)]
    top: usize,
}

impl Show for ShownCheck<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let report = self.report;
        for one in &report.missing {
            let instead = one
                .instead
                .as_ref()
                .map(|instead| format!("; instead {}", instead.text()))
                .unwrap_or_default();
            let (kind, when) = match one.when {
                Needed::Always => ("missing", ""),
                Needed::Later => ("later", ", when a function is called"),
                Needed::Perhaps => ("perhaps", ", in a `try` or an `if`"),
            };
            let (module, place) = (&one.module, one.place());
            out.line(format!(
                "{kind:<12} `{module}`, imported by {place}{when}{instead}"
            ))?;
        }
        for text in self.over_budget {
            out.line(format!("budget       {text}"))?;
        }
        for one in &report.undecided {
            let (by, line, call) = (&one.by, one.line, &one.call);
            out.line(format!("undecided    {by}:{line} {call}"))?;
        }
        let firmware: Vec<&str> = report.firmware.keys().map(String::as_str).collect();
        if !firmware.is_empty() {
            out.fact("firmware", firmware.join(", "))?;
        }
        let mut kept: Vec<_> = report.kept.iter().collect();
        kept.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        let rows: Vec<_> = kept
            .iter()
            .take(self.top)
            .map(|one| {
                [
                    one.from.clone(),
                    one.path.clone(),
                    bytes(one.bytes),
                    one.why.text(),
                ]
            })
            .collect();
        out.table(["PACKAGE", "FILE", "SIZE", "WHY"], &rows)?;
        let own = report.dropped.iter().filter(|one| one.from == "app");
        let mut rows: Vec<_> = own
            .map(|one| [one.path.clone(), bytes(one.bytes), one.why.clone()])
            .collect();
        // Of packages it is usual that most is not needed: `--json` and report.json have each file.
        let mut packages: BTreeMap<(&str, &str), (usize, u64)> = BTreeMap::new();
        let others = report.dropped.iter().filter(|one| one.from != "app");
        let (whole, others): (Vec<_>, Vec<_>) =
            others.partition(|one| one.path.starts_with(&format!("{} ", one.from)));
        rows.extend(
            whole
                .into_iter()
                .map(|one| [one.path.clone(), bytes(one.bytes), one.why.clone()]),
        );
        for one in others {
            let sum = packages.entry((&one.from, &one.why)).or_default();
            *sum = (sum.0 + 1, sum.1 + one.bytes);
        }
        rows.extend(packages.into_iter().map(|((name, why), (files, size))| {
            let word = if files == 1 { "file" } else { "files" };
            [
                format!("{files} {word} of {name}"),
                bytes(size),
                why.to_owned(),
            ]
        }));
        if !rows.is_empty() {
            out.table(["LEFT OUT", "SIZE", "WHY"], &rows)?;
        }
        out.fact("platform", &self.platform)?;
        out.fact("starts", self.entry)?;
        for cost in self.costs {
            let counted = cost
                .instructions
                .map(|count| format!(", {:.2} M instructions", count as f64 / 1e6))
                .unwrap_or_default();
            let ram = bytes(cost.ram_bytes);
            out.fact("import", format!("{ram} of RAM{counted} on {}", cost.on))?;
        }
        if let Some(cost) = self.costs.first() {
            let mut modules: Vec<_> = cost.modules.iter().collect();
            modules.sort_by_key(|one| std::cmp::Reverse(one.ram_bytes));
            let rows: Vec<_> = modules
                .iter()
                .take(self.top)
                .map(|one| {
                    let counted = one.instructions.map(|count| count.to_string());
                    let ram = one.ram_bytes.to_string();
                    [one.module.clone(), ram, counted.unwrap_or_default()]
                })
                .collect();
            out.table(["IMPORTED", "RAM", "INSTRUCTIONS"], &rows)?;
        }
        for one in self.not_measured {
            out.fact("not measured", format!("on {}: {}", one.on, one.why))?;
        }
        out.fact("size", bytes(report.image_bytes))
    }
}

/// Checks and shows it; the exit code says whether the board would lack something.
pub(crate) fn check(
    request: &BuildRequest,
    measured: bool,
    top: usize,
    context: &Context,
) -> miette::Result<ExitCode> {
    let progress = context.progress();
    let found: BoardCheck = check_board(request, measured, &|event| {
        build::show(&event, &progress, context)
    })?;
    drop(progress);
    for text in &found.warnings {
        context.warn(text);
    }
    let has_failed =
        !found.over_budget.is_empty() || found.report.missing.iter().any(|one| one.is_certain());
    context.show(&ShownCheck {
        platform: found.manifest.platform.to_string(),
        entry: &found.manifest.entry,
        costs: &found.costs,
        not_measured: &found.not_measured,
        over_budget: &found.over_budget,
        warnings: &found.warnings,
        report: &found.report,
        top,
    })?;
    Ok(if has_failed {
        ExitCode::from(exit::USER)
    } else {
        ExitCode::SUCCESS
    })
}

#[derive(Serialize)]
struct Chain<'a> {
    module: &'a str,
    exists: bool,
    chain: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    module: String,
    why: String,
}

impl Show for Chain<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for link in &self.chain {
            out.line(format!("{}  {}", link.module, link.why))?;
        }
        Ok(())
    }
}

/// Says why `module` is in the board's release in `dir`, or is not; whether `dir` is one.
pub(crate) fn why(module: &str, dir: &Path, context: &Context) -> miette::Result<bool> {
    let file = dir.join(REPORT_FILE);
    let Ok(text) = std::fs::read(&file) else {
        return Ok(false);
    };
    let report: Report = serde_json::from_slice(&text).map_err(|error| {
        miette::miette!(
            help = "build it again with `pytheas build`",
            "`{}` cannot be read: {error}",
            file.display()
        )
    })?;
    let mut chain: Vec<Link> = report
        .chain(module)
        .into_iter()
        .map(|(module, why)| Link {
            module: module.to_owned(),
            why: why.text(),
        })
        .collect();
    chain.reverse();
    let exists = !chain.is_empty();
    if !exists {
        chain.extend(report.firmware.get(module).map(|used| Link {
            module: module.to_owned(),
            why: format!("the firmware has it; first imported by {}", used.by),
        }));
        chain.extend(
            report
                .missing
                .iter()
                .filter(|one| one.module == module)
                .map(|one| Link {
                    module: module.to_owned(),
                    why: format!("the board lacks it; imported by {}", one.place()),
                }),
        );
        let path = module.replace('.', "/");
        let stems = [
            format!("{path}.py"),
            format!("{path}.mpy"),
            format!("{path}/__init__.py"),
        ];
        chain.extend(
            report
                .dropped
                .iter()
                .filter(|one| {
                    one.path == module
                        || stems.iter().any(|stem| {
                            one.path == *stem || one.path.ends_with(&format!("/{stem}"))
                        })
                })
                .map(|one| Link {
                    module: one.path.clone(),
                    why: format!("left out of {}: {}", one.from, one.why),
                }),
        );
    }
    if chain.is_empty() {
        let known = report.kept.iter().filter_map(|kept| kept.module.as_deref());
        let near = pytheas_project::closest(module, known);
        return Err(miette::miette!(
            help = near.map_or_else(
                || "`pytheas check` lists what is there".to_owned(),
                |near| format!("did you mean `{near}`?")
            ),
            "nothing of the name `{module}` is known to the release"
        ));
    }
    context.show(&Chain {
        module,
        exists,
        chain,
    })?;
    Ok(true)
}
