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
    measure::{self, Cost, NotMeasured},
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
    /// What importing it costs, where that was measured.
    pub costs: Vec<Cost>,
    /// Where it could not be measured.
    pub not_measured: Vec<NotMeasured>,
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
/// With `measured`, and when the target has budgets for it, what importing costs is measured.
///
/// # Errors
/// When the project cannot be read that far; what the board would lack is no error here.
pub fn check_board(
    request: &BuildRequest,
    measured: bool,
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
    let (costs, not_measured) = if measured || has_cost_budget(&plan) {
        let measured = measure::measure(&plan.image, &plan.imported, &request.environment)?;
        over_budget.extend(over_cost(&plan, &measured.0, &mut warnings)?);
        measured
    } else {
        (Vec::new(), Vec::new())
    };
    Ok(BoardCheck {
        manifest: plan.manifest,
        report: plan.report,
        costs,
        not_measured,
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
    if has_cost_budget(&plan) {
        let (costs, _) = measure::measure(&plan.image, &plan.imported, &request.environment)?;
        let over = over_cost(&plan, &costs, &mut warnings)?;
        if !over.is_empty() {
            return Err(MicroPythonError::OverCost {
                what: over.join("; "),
            }
            .into());
        }
    }
    // What packages import in functions is their matter; `pytheas check` lists it.
    let is_app = |one: &Missing| plan.lines.sources.values().any(|source| *source == one.by);
    let later = |one: &&Missing| one.when == Needed::Later && is_app(one);
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

fn has_cost_budget(plan: &Plan) -> bool {
    plan.target.ram_budget.is_some() || plan.target.import_budget.is_some()
}

/// What is over the budgets of importing; where no emulated board is, a warning says so.
fn over_cost(
    plan: &Plan,
    costs: &[Cost],
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, BuildError> {
    let ram = plan.target.ram_budget.as_deref();
    let ram = ram.map(Budget::parse).transpose()?;
    let import = plan.target.import_budget.as_deref();
    let import = import
        .map(|text| {
            let wrong = || MicroPythonError::Setting {
                key: "import-budget",
                value: text.to_owned(),
                why: "is no number of instructions".to_owned(),
                help: "write e.g. `3 M` or `800 k`",
            };
            measure::instructions(text).ok_or_else(wrong)
        })
        .transpose()?;
    let Some(cost) = costs.iter().find(|cost| cost.on == "qemu") else {
        if has_cost_budget(plan) {
            warnings.push(
                "`ram-budget` and `import-budget` were not checked: no emulated board could import the app (`pytheas check --measure` says why)"
                    .to_owned(),
            );
        }
        return Ok(Vec::new());
    };
    let mut over = Vec::new();
    if let Some(budget) = ram.filter(|budget| cost.ram_bytes > budget.bytes) {
        over.push(format!(
            "importing it keeps {} of RAM, the budget is {}",
            shown_bytes(cost.ram_bytes),
            budget.text
        ));
    }
    if let (Some(budget), Some(taken)) = (import, cost.instructions)
        && taken > budget
    {
        over.push(format!(
            "importing it takes {taken} instructions, the budget is {budget}"
        ));
    }
    Ok(over)
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
