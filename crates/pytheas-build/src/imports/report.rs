//! The report: each module with the least time of all runs, the packages they belong to.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_project::Project;
use serde::Serialize;

use super::{
    hints::{ImportHint, hints},
    run::Run,
    subject::{Subject, package},
};

/// One module of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedModule {
    /// Its full name.
    pub module: String,
    /// The package it belongs to, `app`, or `python`.
    pub package: String,
    /// The module whose import led to it; none for what the entry point itself imports.
    pub by: Option<String>,
    /// Microseconds for itself.
    pub self_us: u64,
    /// Microseconds with what it imported first.
    pub cumulative_us: u64,
    /// Bytes that are read for it: its byte code, else its source or extension module.
    pub size_bytes: Option<u64>,
    /// Whether it has byte code, where it has a source.
    pub has_byte_code: bool,
}

/// The modules of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedPackage {
    /// The package, `app`, or `python`.
    pub package: String,
    /// How many.
    pub modules: usize,
    /// Microseconds for its own modules.
    pub self_us: u64,
    /// Bytes that are read for them.
    pub size_bytes: u64,
}

/// What a start spends on imports.
#[derive(Debug, Clone, Serialize)]
pub struct ImportReport {
    /// What was imported, e.g. `greenhouse.main` or `app/main.py`.
    pub entry: String,
    /// How often.
    pub runs: u32,
    /// Microseconds of the fastest run, all imports of the entry point.
    pub total_us: u64,
    /// Microseconds of the modules that Python itself imports before, and how many.
    pub python_us: u64,
    /// How many.
    pub python_modules: usize,
    /// Bytes that are read for the modules.
    pub size_bytes: u64,
    /// The import that failed, and why; what came before is measured.
    pub failed: Option<String>,
    /// By package, the slowest first.
    pub packages: Vec<ImportedPackage>,
    /// Every module, the slowest first.
    pub modules: Vec<ImportedModule>,
    /// What would help, the dearest first.
    pub hints: Vec<ImportHint>,
}

/// The modules of one run with the least times of all, each with its parent.
pub(super) fn modules(runs: &[Run]) -> Vec<(String, Option<String>, u64, u64)> {
    let Some(shown) = runs.iter().min_by_key(|run| run.spent_us) else {
        return Vec::new();
    };
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, name, own) in runs.iter().flat_map(|run| &run.after) {
        let entry = least.entry(name).or_insert(*own);
        *entry = (*entry).min(*own);
    }
    let mut found: Vec<(String, Option<String>, u64, u64)> = Vec::new();
    // Positions whose parent comes later, by depth.
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    for (depth, name, _) in &shown.after {
        let own = least.get(name.as_str()).copied().unwrap_or(0);
        let mut all = own;
        while let Some((_, child)) = waiting.pop_if(|(inner, _)| *inner > *depth) {
            found[child].1 = Some(name.clone());
            all += found[child].3;
        }
        waiting.push((*depth, found.len()));
        found.push((name.clone(), None, own, all));
    }
    found
}

pub(super) fn report(subject: &Subject, runs: &[Run], project: Option<&Project>) -> ImportReport {
    let fastest = runs.iter().min_by_key(|run| run.spent_us);
    let none = BTreeMap::new();
    let files = fastest.map_or(&none, |run| &run.files);
    let mut modules: Vec<ImportedModule> = modules(runs)
        .into_iter()
        .map(|(module, by, self_us, cumulative_us)| {
            let (file, code) = files.get(&module).cloned().unwrap_or_default();
            let length = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
            let code = length(&code).filter(|_| !code.as_os_str().is_empty());
            let is_source = file.extension().is_some_and(|end| end == "py");
            ImportedModule {
                package: package(subject, &file),
                has_byte_code: code.is_some() || !is_source,
                size_bytes: code.or_else(|| length(&file)),
                module,
                by,
                self_us,
                cumulative_us,
            }
        })
        .collect();
    let mut packages: BTreeMap<&str, ImportedPackage> = BTreeMap::new();
    for module in &modules {
        let package = packages
            .entry(&module.package)
            .or_insert_with(|| ImportedPackage {
                package: module.package.clone(),
                modules: 0,
                self_us: 0,
                size_bytes: 0,
            });
        package.modules += 1;
        package.self_us += module.self_us;
        package.size_bytes += module.size_bytes.unwrap_or(0);
    }
    let mut packages: Vec<ImportedPackage> = packages.into_values().collect();
    packages.sort_by(|a, b| (b.self_us, &a.package).cmp(&(a.self_us, &b.package)));
    let hints = hints(subject, &modules, &packages, project);
    modules.sort_by(|a, b| (b.self_us, &a.module).cmp(&(a.self_us, &b.module)));
    let python = runs
        .iter()
        .map(|run| run.before.iter().map(|(_, _, own)| own).sum::<u64>());
    ImportReport {
        entry: subject.entry.clone(),
        runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        total_us: fastest.map_or(0, |run| run.spent_us),
        python_us: python.min().unwrap_or(0),
        python_modules: fastest.map_or(0, |run| run.before.len()),
        size_bytes: packages.iter().map(|package| package.size_bytes).sum(),
        failed: runs.iter().find_map(|run| run.failed.clone()),
        packages,
        modules,
        hints,
    }
}
