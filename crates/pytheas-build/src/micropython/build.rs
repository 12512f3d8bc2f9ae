//! Writing a board's release: the tree with `pytheas.json`, the image, the report and the tables.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use pytheas_project::{Also, normalised_name};
use pytheas_release::{BuildRecord, RECORD_FILE, Tree, TreeId, UpdateRules, board::ImageManifest};

use super::{
    error::MicroPythonError,
    frozen,
    lines::LINES_FILE,
    plan::{Plan, plan},
    report::{Missing, Needed, REPORT_FILE, Report},
};
use crate::{
    BuildRequest,
    budget::{Budget, shown_bytes},
    error::{BuildError, io_error},
    event::{Event, Observer, Phase},
    output::Output,
    scratch::{self, Kind},
};

/// The form's name.
pub(crate) const FORM: &str = "micropython";
/// The image in a built tree.
pub const IMAGE_FILE: &str = "app.romfs";

/// A finished build for a board.
#[derive(Debug, Clone)]
pub struct BoardBuilt {
    /// The folder with the result.
    pub dir: PathBuf,
    /// What `pytheas.json` in it says.
    pub record: BuildRecord,
    /// What the image says of itself.
    pub manifest: ImageManifest,
    /// What it holds and why.
    pub report: Report,
    /// The tree.
    pub tree: Tree,
    /// Its id.
    pub tree_id: TreeId,
    /// What should be known.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a check of a project for a board found.
#[derive(Debug, Clone)]
pub struct BoardCheck {
    /// What the image would say of itself.
    pub manifest: ImageManifest,
    /// What it would hold, what is missing.
    pub report: Report,
    /// Budgets that are exceeded, in words.
    pub over_budget: Vec<String>,
    /// What should be known.
    pub warnings: Vec<String>,
}

/// Whether `request` is for a board.
///
/// # Errors
/// When the project has no such target.
pub fn is_board_form(request: &BuildRequest) -> Result<bool, BuildError> {
    let target = request.project.target(request.target.as_deref())?;
    let form = request.form.as_deref().or(target.form.as_deref());
    Ok(form == Some(FORM))
}

/// Finds out what a build would give, and writes nothing but the lock file of packages.
///
/// # Errors
/// When the project cannot be read that far; what the board would lack is no error here.
pub fn check_board(
    request: &BuildRequest,
    observer: Observer<'_>,
) -> Result<BoardCheck, BuildError> {
    let plan = plan(request, observer)?;
    let mut over_budget = Vec::new();
    let mut warnings = plan.warnings.clone();
    match budgets(&plan) {
        Ok(more) => warnings.extend(more),
        Err(error @ (BuildError::OverBudget { .. } | BuildError::PackageOverBudget { .. })) => {
            over_budget.push(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(BoardCheck {
        manifest: plan.manifest,
        report: plan.report,
        over_budget,
        warnings,
    })
}

/// Builds what `request` says for a board.
///
/// # Errors
/// See [`BuildError`]; what was in the output's place before is then untouched.
pub fn build_board(
    request: &BuildRequest,
    observer: Observer<'_>,
) -> Result<BoardBuilt, BuildError> {
    let start = Instant::now();
    let project = &request.project;
    let name = request.name.as_ref().unwrap_or(&project.name);
    let default_out = project.dir.join("dist").join(name.as_str());
    let out = request.out.as_deref().unwrap_or(&default_out);
    let output = Output::prepare(out, &project.dir)?;
    let request = BuildRequest {
        out: Some(output.target().to_owned()),
        ..request.clone()
    };
    observer(Event::Phase(Phase::App));
    let plan = plan(&request, observer)?;
    refuse_missing(&plan.report)?;
    let mut warnings = plan.warnings.clone();
    warnings.extend(budgets(&plan)?);
    let later = |one: &&Missing| one.when == Needed::Later;
    for missing in plan.report.missing.iter().filter(later) {
        warnings.push(format!(
            "the board lacks `{}`, which {} imports when a function is called",
            missing.module,
            missing.place()
        ));
    }
    observer(Event::Phase(Phase::Tree));
    let dir = output.scratch();
    std::fs::create_dir(&dir).map_err(io_error("make", &dir))?;
    let record = BuildRecord {
        format: 1,
        name: plan.name.clone(),
        version: plan.version.clone(),
        form: FORM.to_owned(),
        platform: plan.manifest.platform.clone(),
        entry: IMAGE_FILE.parse().map_err(|_| BuildError::Form {
            form: FORM.to_owned(),
            state: "broken",
            available: String::new(),
        })?,
        health: project.settings.health(),
        config: project.settings.config(&plan.name),
        interpreter: None,
        update: UpdateRules {
            rules: project.settings.rules(),
            hooks: pytheas_release::Hooks::default(),
        },
    };
    let put = |path: &str, bytes: &[u8]| {
        let file = dir.join(path);
        scratch::write(&file, bytes, Kind::Data).map_err(io_error("write", &file))
    };
    put(RECORD_FILE, &record.encode())?;
    put(IMAGE_FILE, &plan.image)?;
    put(LINES_FILE, &plan.lines.encode())?;
    put(REPORT_FILE, &plan.report.encode())?;
    if plan.target.also.contains(&Also::Files) {
        for (path, bytes) in &plan.files {
            put(&format!("files/{path}"), bytes)?;
        }
    }
    if plan.target.also.contains(&Also::Frozen) {
        let modules = plan
            .sources
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        let title = format!("{} {}", plan.name, plan.version);
        frozen::write(&dir, modules, plan.target.optimize, &title)?;
        let data: Vec<&str> = plan
            .report
            .kept
            .iter()
            .filter(|kept| kept.module.is_none())
            .map(|kept| kept.path.as_str())
            .collect();
        if !data.is_empty() {
            warnings.push(format!(
                "firmware can hold modules only: `frozen/` is without `{}`",
                data.join("`, `")
            ));
        }
    }
    for text in &warnings {
        observer(Event::Warning { text: text.clone() });
    }
    pytheas_durable::trees::set_modes(&dir, 0).map_err(io_error("set modes in", &dir))?;
    let tree = pytheas_durable::trees::scan(&dir).map_err(|source| BuildError::Tree { source })?;
    let dir = output.finish()?;
    Ok(BoardBuilt {
        dir,
        record,
        manifest: plan.manifest,
        report: plan.report,
        tree_id: tree.id(),
        tree,
        warnings,
        elapsed: start.elapsed(),
    })
}

/// Modules without which an import at the top of a file fails.
fn refuse_missing(report: &Report) -> Result<(), MicroPythonError> {
    let certain: Vec<_> = report
        .missing
        .iter()
        .filter(|one| one.is_certain())
        .collect();
    if certain.is_empty() {
        return Ok(());
    }
    let names = certain
        .iter()
        .map(|one| format!("`{}` (imported by {})", one.module, one.place()));
    let mut help: Vec<String> = Vec::new();
    for one in &certain {
        if let Some(instead) = &one.instead {
            let line = format!("instead of `{}`: {}", one.module, instead.text());
            if !help.contains(&line) {
                help.push(line);
            }
        }
    }
    help.push(
        "packages are named in `dependencies` of `[tool.pytheas.micropython]`, modules that this firmware has in its `firmware-modules`"
            .to_owned(),
    );
    Err(MicroPythonError::Missing {
        names: names.collect(),
        help: help.join("\n"),
    })
}

/// Checks the budgets; gives the names of packages that are not there.
fn budgets(plan: &Plan) -> Result<Vec<String>, BuildError> {
    let mut parts: Vec<_> = plan.report.kept.iter().collect();
    parts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let largest = |from: Option<&str>| {
        let shown = parts
            .iter()
            .filter(|kept| from.is_none_or(|from| kept.from == from))
            .take(5)
            .map(|kept| format!("`{}` {}", kept.path, shown_bytes(kept.bytes)));
        shown.collect::<Vec<_>>().join(", ")
    };
    if let Some(text) = &plan.target.budget {
        let budget = Budget::parse(text)?;
        let size = plan.image.len() as u64;
        if size > budget.bytes {
            return Err(BuildError::OverBudget {
                size: shown_bytes(size),
                over: shown_bytes(size - budget.bytes),
                budget: budget.text,
                largest: largest(None),
            });
        }
    }
    let mut absent = Vec::new();
    for (name, text) in &plan.target.budgets {
        let budget = Budget::parse(text)?;
        let found = plan
            .report
            .packages
            .iter()
            .find(|(package, _)| normalised_name(package) == normalised_name(name));
        match found {
            None => absent.push(format!(
                "`budgets` names `{name}`, which the image does not have"
            )),
            Some((package, size)) if *size > budget.bytes => {
                return Err(BuildError::PackageOverBudget {
                    package: package.clone(),
                    size: shown_bytes(*size),
                    over: shown_bytes(size - budget.bytes),
                    budget: budget.text,
                    largest: largest(Some(package)),
                });
            }
            Some(_) => {}
        }
    }
    Ok(absent)
}
