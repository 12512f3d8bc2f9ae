//! What a module imports. Bytecode decides which imports there are (branches that the compiler left
//! out are gone); the source tells when they happen, and what stands below `if TYPE_CHECKING`.

use pytheas_board::mpy::{self, Mpy};
use pytheas_project::graph::{self, What, When};

use super::{candidates::Candidate, error::MicroPythonError};

/// One import, seen from the module that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) what: What,
    /// None in bytecode without lines.
    pub(super) line: Option<u32>,
    pub(super) when: When,
}

/// What a module says.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) imports: Vec<Import>,
    /// Calls that import something only known at run time: line (0: not known) and call.
    pub(super) undecided: Vec<(u32, String)>,
}

/// The imports of `module`; `code` is it compiled, with lines where there is a source.
pub(super) fn of(module: &Candidate, code: &[u8]) -> Result<Said, MicroPythonError> {
    let mpy = Mpy::parse(code).map_err(|source| MicroPythonError::NoModule {
        file: module.source.clone(),
        source,
    })?;
    let compiled = mpy.imports();
    let Some(text) = module.text() else {
        let imports = compiled.found.iter().map(|import| Import {
            what: what(import),
            line: import.line.and_then(|line| u32::try_from(line).ok()),
            when: when(import),
        });
        let undecided = compiled.unresolved.iter().map(|one| {
            let line = one.line.and_then(|line| u32::try_from(line).ok());
            let call = if one.native {
                "native code"
            } else {
                "__import__(…)"
            };
            (line.unwrap_or(0), format!("{call} in {}", one.function))
        });
        return Ok(Said {
            imports: imports.collect(),
            undecided: undecided.collect(),
        });
    };
    let source = graph::read_source(&text);
    let mut said = Said {
        undecided: source.undecided,
        ..Said::default()
    };
    for import in &compiled.found {
        let line = import.line.and_then(|line| u32::try_from(line).ok());
        // Lines of a statement over several lines may differ by where its names stand.
        let same = source
            .imports
            .iter()
            .filter(|other| is_same(&other.what, import))
            .min_by_key(|other| line.map_or(0, |line| line.abs_diff(other.line)));
        said.imports.push(Import {
            what: what(import),
            line: same.map(|other| other.line).or(line),
            when: same.map_or_else(|| when(import), |other| other.when),
        });
    }
    let hides = compiled.unresolved.iter().any(|one| one.native);
    for import in source.imports {
        if hides || matches!(import.what, What::AnyOf { .. }) {
            said.imports.push(Import {
                what: import.what,
                line: Some(import.line),
                when: import.when,
            });
        }
    }
    Ok(said)
}

fn what(import: &mpy::Import) -> What {
    if import.names.is_empty() && !import.star && import.level == 0 {
        return What::Module {
            name: import.module.clone(),
        };
    }
    What::Names {
        level: import.level,
        name: import.module.clone(),
        names: import.names.clone(),
    }
}

fn when(import: &mpy::Import) -> When {
    match (import.in_try, import.function.as_str()) {
        (true, _) => When::Guarded,
        (false, "<module>") => When::Always,
        _ => When::Lazy,
    }
}

fn is_same(source: &What, import: &mpy::Import) -> bool {
    match source {
        What::Module { name } => import.level == 0 && *name == import.module,
        What::Names { level, name, .. } => *level == import.level && *name == import.module,
        What::AnyOf { .. } => false,
    }
}
