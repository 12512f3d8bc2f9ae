//! Which data goes along: what `include` of `[tool.pytheas]` names.

use glob::{MatchOptions, Pattern};
use pytheas_project::Project;

use super::{
    candidates::{Candidate, Candidates},
    error::MicroPythonError,
};
use crate::error::BuildError;

/// The project's own files that `include` names, whatever imports them.
pub(crate) fn included(project: &Project) -> Result<Vec<Included>, BuildError> {
    let include = patterns(&project.settings.include)?;
    if include.is_empty() {
        return Ok(Vec::new());
    }
    let out = project.dir.join("dist");
    let candidates = Candidates::collect(project, Vec::new(), &out)?;
    let is_named = |one: &Candidate| is_match(&include, &one.source);
    let named = candidates.all.into_iter().filter(is_named);
    Ok(named
        .map(|one| Included {
            path: one.path,
            source: one.source,
            bytes: one.bytes,
        })
        .collect())
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Included {
    /// Its path on the board.
    pub(crate) path: pytheas_release::RelPath,
    /// In the project.
    pub(crate) source: String,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

/// Files of packages that only computers use.
pub(super) fn is_for_computers(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "py.typed"
        || [".pyi", ".pyc", ".pyx", ".c", ".h"]
            .iter()
            .any(|end| name.ends_with(end))
}

pub(super) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, MicroPythonError> {
    let pattern = |text: &String| {
        let plain = text.trim_start_matches("./").trim_end_matches('/');
        Pattern::new(plain).map_err(|error| MicroPythonError::Setting {
            key: "include",
            value: text.clone(),
            why: format!("is no file pattern: {}", error.msg),
            help: "`*` stands for a part of a name, `**` for any folders",
        })
    };
    texts.iter().map(pattern).collect()
}

/// Whether a pattern names the file or a folder above it.
pub(super) fn is_match(patterns: &[Pattern], path: &str) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    ends.map(|end| &path[..end]).any(|path| {
        patterns
            .iter()
            .any(|pattern| pattern.matches_with(path, options))
    })
}
