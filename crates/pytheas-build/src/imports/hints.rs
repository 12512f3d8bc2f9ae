//! What would make a start faster: what takes much, where it is imported, what is lighter.

use std::collections::{BTreeMap, BTreeSet};

use pytheas_project::Project;
use serde::Serialize;

use super::{
    report::{ImportedModule, ImportedPackage},
    subject::Subject,
};
use crate::{
    explain::{self, APP},
    heavy,
};

/// A hint is given for what takes so much of all imports, and not less than [`LEAST_US`].
const SHARE: f64 = 0.1;
const LEAST_US: u64 = 10_000;

/// What would make the start faster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportHint {
    /// The module or package.
    pub what: String,
    /// What it costs, in microseconds.
    pub cost_us: u64,
    /// What to do.
    pub text: String,
}

/// What takes much, and what to do: import it later, or have something lighter.
pub(super) fn hints(
    subject: &Subject,
    modules: &[ImportedModule],
    packages: &[ImportedPackage],
    project: Option<&Project>,
) -> Vec<ImportHint> {
    let total: u64 = modules.iter().map(|module| module.self_us).sum();
    let is_much = |us: u64| us >= LEAST_US && us as f64 >= total as f64 * SHARE;
    let apps: BTreeSet<&str> = modules
        .iter()
        .filter(|module| module.package == APP)
        .map(|module| module.module.as_str())
        .collect();
    let mut hints = Vec::new();
    let mut places = None;
    for module in modules {
        let by_app = module.by.as_deref().is_none_or(|by| apps.contains(by));
        if module.package == APP || !by_app || !is_much(module.cumulative_us) {
            continue;
        }
        let places = places.get_or_insert_with(|| imported_by(subject, project));
        let place = places
            .get(module.module.split('.').next().unwrap_or_default())
            .into_iter()
            .flatten()
            .find(|(by, _)| by == "__main__" || apps.contains(by.as_str()));
        let by = match (place, &module.by) {
            (Some((by, line)), _) if by == "__main__" => {
                format!("{} line {line}", subject.entry)
            }
            (Some((by, line)), _) => format!("{by} line {line}"),
            (None, Some(by)) => by.clone(),
            (None, None) => subject.entry.clone(),
        };
        hints.push(ImportHint {
            what: module.module.clone(),
            cost_us: module.cumulative_us,
            text: format!(
                "imported by {by}; inside the function that uses it, a start that does not call that goes without"
            ),
        });
    }
    for package in packages.iter().filter(|package| is_much(package.self_us)) {
        let Some((instead, note)) = heavy::lighter(&package.package) else {
            continue;
        };
        let instead = match instead {
            [] => String::new(),
            _ => format!("instead {}: ", instead.join(" or ")),
        };
        hints.push(ImportHint {
            what: package.package.clone(),
            cost_us: package.self_us,
            text: format!("{instead}{note}"),
        });
    }
    let bare: Vec<&ImportedModule> = modules.iter().filter(|one| !one.has_byte_code).collect();
    if !bare.is_empty() {
        hints.push(ImportHint {
            what: bare[0].module.clone(),
            cost_us: bare.iter().map(|module| module.self_us).sum(),
            text: format!(
                "{} modules have no byte code and are compiled at every start; `bytecode = \"with-source\"` brings it",
                bare.len()
            ),
        });
    }
    hints.sort_by_key(|hint| std::cmp::Reverse(hint.cost_us));
    hints
}

/// Which modules import a top-level name, and on which line, as the import graph has it.
fn imported_by(
    subject: &Subject,
    project: Option<&Project>,
) -> BTreeMap<String, Vec<(String, u32)>> {
    let graph = subject
        .inventory
        .as_ref()
        .and_then(|inventory| explain::import_graph(&inventory.dir, project).ok());
    graph.map_or_else(BTreeMap::new, |graph| graph.imported_by)
}
