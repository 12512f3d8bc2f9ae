//! Everything a board's release consists of, decided and compiled, but not written: what building
//! and checking share.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;
use pytheas_board::{lines::LinesJson, mpy::Arch};
use pytheas_project::{Entry, Target, graph};
use pytheas_release::{
    Name, Platform, RelPath, Version,
    board::{BoardRules, Body, ImageManifest},
};

use super::{
    arch::{self, Board},
    candidates::{APP, Candidate, Candidates},
    compile::{CompileOptions, Compiler, Source, board_path, check_fit},
    error::MicroPythonError,
    firmware::Firmware,
    include::{is_for_computers, is_match, patterns},
    left_out::dropped,
    lines,
    mip::{self, MipOptions},
    mpy_cross::MpyCross,
    reach::{self, Compiled, Reached},
    report::{Kept, Report, Why},
};
use crate::{BuildRequest, Event, error::BuildError, event::Observer};

/// A release that could be written.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) name: Name,
    pub(super) version: Version,
    /// What importing the entry brings in, in that order.
    pub(super) imported: Vec<String>,
    pub(super) manifest: ImageManifest,
    pub(super) image: Vec<u8>,
    /// What the image holds.
    pub(super) files: BTreeMap<RelPath, Vec<u8>>,
    /// Modules as source, or as they came, and data.
    pub(super) sources: BTreeMap<String, Vec<u8>>,
    pub(super) report: Report,
    pub(super) lines: LinesJson,
    pub(super) warnings: Vec<String>,
}

/// Decides and compiles what `request` says.
pub(super) fn plan(request: &BuildRequest, observer: Observer<'_>) -> Result<Plan, BuildError> {
    let _nothing_vanishes = crate::cache::use_cache(&request.environment);
    let project = &request.project;
    let target = project.target(request.target.as_deref())?;
    let name = request.name.as_ref().unwrap_or(&project.name).clone();
    let (board, arch) = board_of(request, &target)?;
    if target.optimize > 3 {
        return Err(MicroPythonError::Setting {
            key: "optimize",
            value: target.optimize.to_string(),
            why: "is no level of mpy-cross".to_owned(),
            help: "write 0 (everything), 1 or 2 (without `assert`) or 3 (without line numbers, too)",
        }
        .into());
    }
    let micropython = target.micropython.as_deref().map(micropython).transpose()?;
    let version = match &request.version {
        Some(version) => Some(version.clone()),
        None => pytheas_project::resolve_version(project, &request.environment)?
            .or_else(|| project.version.clone()),
    };
    let version = match version {
        Some(version) => version,
        None => "0.0.0".parse().map_err(|_| no_version())?,
    };
    let entry = project.entry(request.entry.as_ref().or(target.entry.as_ref()))?;
    let mip_options = MipOptions {
        upgrade: pytheas_project::lock::Upgrade::Nothing,
        connectivity: request.connectivity,
        environment: request.environment.clone(),
    };
    let lock = mip::lock_if_needed(project, request.lock, &mip_options, observer)
        .map_err(MicroPythonError::from)?;
    let port = board.as_ref().map(|board| board.port.as_str());
    let packages = match &lock {
        Some(lock) => mip::files(project, lock, &mip_options, port),
        None => Ok(mip::Packages::default()),
    };
    let packages = packages.map_err(MicroPythonError::from)?;
    let mpy_cross = MpyCross::find(&request.environment, request.connectivity, observer)?;
    let mpy = mpy_cross.mpy;
    let compiler = Compiler::new(mpy_cross, &request.environment);
    let out = request
        .out
        .clone()
        .unwrap_or_else(|| project.dir.join("dist"));
    let candidates = Candidates::collect(project, packages.files, &out)?;
    let mut warnings = Vec::new();
    let (module, started) = started(&entry, &candidates, &mut warnings)?;
    let firmware = Firmware::of(
        board.as_ref(),
        &project.settings.micropython.firmware_modules,
    );
    let keep: Vec<String> = target.keep.iter().chain(&request.keep).cloned().collect();
    for pattern in &keep {
        let name = pattern.trim_end_matches(".*");
        if candidates.get(name).is_none() && !candidates.is_namespace(name) {
            let near = pytheas_project::closest(name, candidates.modules());
            let near = near.map(|near| format!("; did you mean `{near}`?"));
            warnings.push(format!(
                "`keep` names `{pattern}`, which neither the project nor a package has{}",
                near.unwrap_or_default()
            ));
        }
    }
    observer(Event::Step {
        text: "compiling modules".to_owned(),
    });
    let options = CompileOptions {
        arch,
        optimize: target.optimize,
    };
    let compile = |modules: &[&Candidate]| compile(&compiler, modules, options);
    let reached = reach::follow(
        &candidates,
        &reach::Start {
            entry: &module,
            compile: &compile,
            keep: &keep,
            firmware: &firmware,
        },
    )?;
    let include = patterns(&project.settings.include)?;
    let mut parts = Parts::default();
    parts.modules(&candidates, &reached, arch, mpy)?;
    parts.data(&candidates, &reached, &include)?;
    let mut manifest = ImageManifest {
        format: 1,
        name: name.clone(),
        version: version.clone(),
        counter: 0,
        platform: arch::platform(parts.arch),
        entry: started,
        mpy: parts
            .files
            .keys()
            .any(|path| path.as_str().ends_with(".mpy"))
            .then_some(mpy),
        front: 0,
        body: Body {
            sha256: pytheas_release::Sha256::of(b""),
            size: 0,
        },
        requires: BoardRules {
            boards: target.models.clone(),
            micropython,
            firmware: target.firmware.clone(),
        },
        allow_downgrade: project.settings.allow_downgrade,
        keys: Vec::new(),
        config: project
            .settings
            .config(&name)
            .into_iter()
            .filter_map(|(name, option)| Some((name, option.default?)))
            .collect(),
    };
    let image =
        pytheas_board::romfs::image(&mut manifest, &parts.files).map_err(MicroPythonError::from)?;
    for one in reached.undecided.iter().filter(|_| keep.is_empty()) {
        warnings.push(format!(
            "only running tells what `{}` ({}:{}) imports: name it in `keep` of the target",
            one.call, one.by, one.line
        ));
    }
    for (name, (at, _)) in &reached.kept {
        let candidate = &candidates.all[*at];
        if candidate.is_placeholder() && candidates.below(name).next().is_none() {
            warnings.push(format!(
                "`{name}` of {} is a placeholder without any code: what is used of it is not there",
                candidate.from
            ));
        }
    }
    for (name, used) in &reached.firmware {
        if used.hides.as_deref() == Some(APP) {
            warnings.push(format!(
                "the project's own `{name}` is never imported: the firmware's comes before any file of that name; rename yours"
            ));
        }
    }
    let imported = reached.order(&module);
    let lines = lines::table(&candidates, &reached, target.optimize, &lock)?;
    let report = Report {
        format: 1,
        image_bytes: image.len() as u64,
        dropped: dropped(&candidates, &reached, &parts, &packages.left_out),
        packages: parts.packages(),
        kept: parts.kept,
        firmware: reached.firmware,
        missing: reached.missing,
        undecided: reached.undecided,
    };
    Ok(Plan {
        target,
        name,
        version,
        imported,
        manifest,
        image,
        files: parts.files,
        sources: parts.sources,
        report,
        lines,
        warnings,
    })
}

fn no_version() -> MicroPythonError {
    MicroPythonError::Setting {
        key: "version",
        value: "0.0.0".to_owned(),
        why: "is no version".to_owned(),
        help: "give `--release-version`",
    }
}

/// The board, where one is named, and the architecture of native code.
fn board_of(
    request: &BuildRequest,
    target: &Target,
) -> Result<(Option<Board>, Option<Arch>), MicroPythonError> {
    let board = target.board.as_deref().map(arch::board).transpose()?;
    let platform = request.platform.as_ref().or(target.platform.as_ref());
    let named = platform.map(arch::arch_of).transpose()?.flatten();
    if let (Some(board), Some(named)) = (&board, named)
        && !board.arch.is_some_and(|own| own.runs(named))
    {
        return Err(MicroPythonError::Setting {
            key: "platform",
            value: platform.map(Platform::to_string).unwrap_or_default(),
            why: format!(
                "does not fit `board = \"{}\"`, which runs {}",
                board.name,
                board.arch.map_or("no native code", Arch::name)
            ),
            help: "leave `platform` out: the board decides it",
        });
    }
    let arch = named.or(board.as_ref().and_then(|board| board.arch));
    Ok((board, arch))
}

/// `1.25` as the manifest has it.
fn micropython(text: &str) -> Result<String, MicroPythonError> {
    let plain = text
        .trim()
        .trim_start_matches(">=")
        .trim_start_matches('v')
        .trim();
    let parts: Vec<Option<u32>> = plain.split('.').map(|part| part.parse().ok()).collect();
    if parts.len() < 2 || parts.len() > 3 || parts.contains(&None) {
        return Err(MicroPythonError::Setting {
            key: "micropython",
            value: text.to_owned(),
            why: "is no version".to_owned(),
            help: "write the oldest MicroPython that will do, e.g. `1.25`",
        });
    }
    let mut numbers: Vec<String> = parts.iter().flatten().map(ToString::to_string).collect();
    numbers.resize(3, "0".to_owned());
    Ok(numbers.join("."))
}

/// The module that is followed, and what the board starts.
fn started(
    entry: &Entry,
    candidates: &Candidates,
    warnings: &mut Vec<String>,
) -> Result<(String, String), MicroPythonError> {
    let wrong = |why: String| MicroPythonError::Entry {
        entry: entry.to_string(),
        why,
    };
    let (module, callable) = match entry {
        Entry::Callable { module, callable } => (module.clone(), Some(callable)),
        Entry::Module(module) => {
            let main = format!("{module}.__main__");
            let is_program = candidates.get(&main).is_some();
            (if is_program { main } else { module.clone() }, None)
        }
        Entry::Script(path) => {
            let own = candidates
                .all
                .iter()
                .find(|one| one.is_app() && one.source == path.as_str());
            let module = own.and_then(|one| one.module.clone());
            (
                module.ok_or_else(|| wrong("is no module of the project".to_owned()))?,
                None,
            )
        }
    };
    let Some(at) = candidates.get(&module) else {
        let near = pytheas_project::closest(&module, candidates.modules());
        let near = near.map(|near| format!("; did you mean `{near}`?"));
        return Err(wrong(format!(
            "names the module `{module}`, which is not there{}",
            near.unwrap_or_default()
        )));
    };
    let text = candidates.all[at].text();
    match callable {
        Some(callable) => {
            let first = callable.split('.').next().unwrap_or(callable);
            if text.is_some_and(|text| !binds(&text, first)) {
                return Err(wrong(format!(
                    "names `{first}`, which `{}` does not define",
                    candidates.all[at].source
                )));
            }
            Ok((module.clone(), format!("{module}:{callable}")))
        }
        None => {
            let has_main = text.is_some_and(|text| {
                text.lines().any(|line| {
                    line.starts_with("if") && line.contains("__name__") && line.contains("__main__")
                })
            });
            if has_main {
                warnings.push(format!(
                    "`{}` is imported on the board, so what stands below its `if __name__ == \"__main__\"` is not run: put it into a function and write `entry = \"{module}:main\"`",
                    candidates.all[at].source
                ));
            }
            Ok((module.clone(), module))
        }
    }
}

/// Whether a module's text has the name at its top: a definition, an assignment or an import.
fn binds(text: &str, name: &str) -> bool {
    let source = graph::read_source(text);
    let is_imported = source.imports.iter().any(|import| match &import.what {
        graph::What::Names { names, .. } => names.iter().any(|n| n == name || n == "*"),
        graph::What::Module { name: module } => module == name,
        graph::What::AnyOf { .. } => false,
    });
    let word = |line: &str| {
        let mut words = line
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty());
        match words.next() {
            Some("def" | "class") => words.next() == Some(name),
            Some("async") => words.next() == Some("def") && words.next() == Some(name),
            _ => {
                line.split(['=', ':'])
                    .next()
                    .is_some_and(|left| left.split(',').any(|part| part.trim() == name))
                    || line.contains(&format!(" as {name}"))
            }
        }
    };
    is_imported || text.lines().any(|line| word(line.trim()))
}

fn compile(
    compiler: &Compiler,
    modules: &[&Candidate],
    options: CompileOptions,
) -> Result<Vec<Compiled>, MicroPythonError> {
    let sources: Vec<Source> = modules
        .iter()
        .filter(|module| module.is_source())
        .map(|module| Source {
            name: module.path.to_string(),
            bytes: module.bytes.clone(),
        })
        .collect();
    let named = |error| with_source(error, modules);
    let mut compiled = compiler
        .compile(&sources, options)
        .map_err(named)?
        .into_iter();
    // The same code with lines: `assert` is left out of both.
    let mut twins = if options.optimize == 3 {
        let options = CompileOptions {
            optimize: 2,
            ..options
        };
        compiler.compile(&sources, options)?
    } else {
        Vec::new()
    }
    .into_iter();
    let each = modules.iter().map(|module| match module.is_source() {
        true => Compiled {
            mpy: compiled.next().unwrap_or_default(),
            twin: twins.next(),
        },
        false => Compiled {
            mpy: module.bytes.clone(),
            twin: None,
        },
    });
    Ok(each.collect())
}

/// An error that names a module by its path on the board, led to its source.
fn with_source(error: MicroPythonError, modules: &[&Candidate]) -> MicroPythonError {
    let MicroPythonError::Compile {
        file,
        message,
        help,
    } = error
    else {
        return error;
    };
    let (path, line) = match file.split_once(':') {
        Some((path, line)) => (path, format!(":{line}")),
        None => (file.as_str(), String::new()),
    };
    let found = modules.iter().find(|module| module.path.as_str() == path);
    let file = match found {
        Some(module) if module.is_app() => format!("{}{line}", module.source),
        Some(module) => format!("{path}{line} of {}", module.from),
        None => file,
    };
    MicroPythonError::Compile {
        file,
        message,
        help,
    }
}

/// The files of the image and what the report says of them.
#[derive(Default)]
pub(super) struct Parts {
    files: BTreeMap<RelPath, Vec<u8>>,
    sources: BTreeMap<String, Vec<u8>>,
    kept: Vec<Kept>,
    /// Candidates among them.
    pub(super) taken: BTreeSet<usize>,
    /// The architecture of native code inside.
    arch: Option<Arch>,
}

impl Parts {
    fn modules(
        &mut self,
        candidates: &Candidates,
        reached: &Reached,
        arch: Option<Arch>,
        mpy: u8,
    ) -> Result<(), MicroPythonError> {
        for (module, (at, why)) in &reached.kept {
            let candidate = &candidates.all[*at];
            let Some(compiled) = reached.compiled.get(at) else {
                continue;
            };
            let stem = candidate.path.as_str();
            let stem = stem.strip_suffix(".py").or(stem.strip_suffix(".mpy"));
            let path = board_path(&format!("{}.mpy", stem.unwrap_or(module)))?;
            let native = check_fit(&candidate.path, &compiled.mpy, arch, mpy)?;
            self.arch = self.arch.max(native);
            self.kept.push(Kept {
                path: path.to_string(),
                module: Some(module.clone()),
                from: candidate.from.clone(),
                bytes: compiled.mpy.len() as u64,
                source_bytes: candidate.bytes.len() as u64,
                why: why.clone(),
            });
            self.taken.insert(*at);
            self.sources
                .insert(candidate.path.to_string(), candidate.bytes.clone());
            self.files.insert(path, compiled.mpy.clone());
        }
        Ok(())
    }

    /// Data inside the packages that are there, and what `include` names.
    fn data(
        &mut self,
        candidates: &Candidates,
        reached: &Reached,
        include: &[Pattern],
    ) -> Result<(), MicroPythonError> {
        let folders: BTreeSet<(&str, &str)> = reached
            .kept
            .values()
            .filter_map(|(at, _)| {
                let candidate = &candidates.all[*at];
                let (dir, _) = candidate.path.as_str().rsplit_once('/')?;
                Some((candidate.from.as_str(), dir))
            })
            .collect();
        for (at, candidate) in candidates.all.iter().enumerate() {
            let is_named = candidate.is_app() && is_match(include, &candidate.source);
            let is_module = candidate.is_source() || candidate.path.as_str().ends_with(".mpy");
            let is_inside = !is_module
                && !is_for_computers(candidate.path.as_str())
                && folders.iter().any(|(from, dir)| {
                    let inside = candidate.path.as_str().strip_prefix(dir);
                    *from == candidate.from && inside.is_some_and(|rest| rest.starts_with('/'))
                });
            if self.taken.contains(&at) || !(is_named || is_inside) {
                continue;
            }
            // A module that `include` names goes as it is, as data; below `src` it is not there twice.
            if self.files.contains_key(&candidate.path)
                || (is_module && self.sources.contains_key(candidate.path.as_str()))
            {
                continue;
            }
            self.kept.push(Kept {
                path: candidate.path.to_string(),
                module: None,
                from: candidate.from.clone(),
                bytes: candidate.bytes.len() as u64,
                source_bytes: candidate.bytes.len() as u64,
                why: if is_named { Why::Include } else { Why::Data },
            });
            self.taken.insert(at);
            self.files
                .insert(candidate.path.clone(), candidate.bytes.clone());
        }
        Ok(())
    }

    fn packages(&self) -> BTreeMap<String, u64> {
        let mut packages = BTreeMap::new();
        for kept in &self.kept {
            *packages.entry(kept.from.clone()).or_default() += kept.bytes;
        }
        packages
    }
}
