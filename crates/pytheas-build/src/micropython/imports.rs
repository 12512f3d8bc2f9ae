//! What a module imports: the one place that reads it from the source, or from the bytecode of a
//! module that came compiled.

use pytheas_project::graph::{self, When};

use super::{candidates::Candidate, error::MicroPythonError};

/// One import, seen from the module that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) what: graph::What,
    /// None in bytecode.
    pub(super) line: Option<u32>,
    pub(super) when: When,
}

/// What a module says.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) imports: Vec<Import>,
    /// Calls that import something only known at run time: line and call.
    pub(super) undecided: Vec<(u32, String)>,
}

/// The imports of `module`.
pub(super) fn of(module: &Candidate) -> Result<Said, MicroPythonError> {
    let Some(text) = module.text() else {
        return Ok(Said::default());
    };
    let source = graph::read_source(&text);
    let imports = source.imports.into_iter().map(|import| Import {
        what: import.what,
        line: Some(import.line),
        when: import.when,
    });
    Ok(Said {
        imports: imports.collect(),
        undecided: source.undecided,
    })
}
