//! `pyproject.toml` as written: PEP 621 (project), PEP 735 (dependency groups), PEP 518 (build
//! system) and `[tool.pytheas]`. Other tables are not looked at.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;

use crate::{python::PythonRequest, settings::Settings};

/// The parts of `pyproject.toml` that matter here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) project: Option<ProjectTable>,
    #[serde(rename = "build-system")]
    pub(crate) build_system: Option<toml::Table>,
    #[serde(rename = "dependency-groups", default)]
    pub(crate) dependency_groups: BTreeMap<String, Vec<toml::Value>>,
    #[serde(default)]
    pub(crate) tool: Tool,
}

/// PEP 621, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ProjectTable {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) dynamic: Vec<String>,
    pub(crate) requires_python: Option<PythonRequest>,
    #[serde(default)]
    pub(crate) dependencies: Vec<String>,
    #[serde(default)]
    pub(crate) optional_dependencies: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(crate) scripts: BTreeMap<String, String>,
}

/// The `[tool]` table.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Tool {
    #[serde(default)]
    pub(crate) pytheas: Settings,
    pub(crate) uv: Option<toml::Table>,
    pub(crate) poetry: Option<toml::Table>,
    pub(crate) setuptools: Option<toml::Table>,
}

impl Manifest {
    /// Whether the dynamic dependencies are what `requirements.txt` says: setuptools is told so, or
    /// there is no back end that could say something else.
    pub(crate) fn has_requirements_txt(&self) -> bool {
        let Some(system) = &self.build_system else {
            return true;
        };
        let backend = system.get("build-backend").and_then(toml::Value::as_str);
        let file = self.tool.setuptools.as_ref().and_then(|table| {
            let dependencies = table.get("dynamic")?.get("dependencies")?;
            match dependencies.get("file")? {
                toml::Value::Array(several) if several.len() == 1 => several[0].as_str(),
                one => one.as_str(),
            }
        });
        backend.is_none_or(|name| name.starts_with("setuptools"))
            && file == Some("requirements.txt")
    }
}

/// A file of the project that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::project::read),
        help("check that it is a file that you may read")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No UTF-8.
    #[error("`{}` is not UTF-8 but {what}", file.display())]
    #[diagnostic(
        code(pytheas::input::encoding),
        help("save it as UTF-8; PowerShell's `>` writes UTF-16")
    )]
    Encoding {
        /// The file.
        file: PathBuf,
        /// What it seems to be.
        what: String,
    },
    /// It is no TOML, or says something that is not understood.
    #[error("`{}` line {line}, column {column}: {message}", path.display())]
    #[diagnostic(code(pytheas::project::manifest))]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
        /// The content, for the snippet.
        #[source_code]
        content: NamedSource<String>,
        /// The place in it.
        #[label("here")]
        span: SourceSpan,
        /// What to do.
        #[help]
        help: Option<String>,
    },
}

/// The file's text, without a byte order mark.
pub(crate) fn text(file: &Path) -> Result<String, ManifestError> {
    let bytes = std::fs::read(file).map_err(|source| ManifestError::Read {
        path: file.to_owned(),
        source,
    })?;
    let what = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16".to_owned(),
        _ => match std::str::from_utf8(&bytes) {
            Ok(text) => return Ok(text.trim_start_matches('\u{feff}').to_owned()),
            Err(error) => {
                let line = bytes[..error.valid_up_to()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                format!("another encoding, first in line {}", line + 1)
            }
        },
    };
    Err(ManifestError::Encoding {
        file: file.to_owned(),
        what,
    })
}

/// Reads and parses the file.
pub(crate) fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let content = text(path)?;
    toml::from_str(&content).map_err(|error| explain(path, &content, &error))
}

/// The parser's error with its place and, for a misspelt key, the right spelling.
pub(crate) fn explain(path: &Path, content: &str, error: &toml::de::Error) -> ManifestError {
    let span = error.span().unwrap_or(0..0);
    let before = &content[..content.floor_char_boundary(span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let (message, help) = reword(error.message());
    ManifestError::Toml {
        path: path.to_owned(),
        line,
        column,
        message,
        content: NamedSource::new(path.display().to_string(), content.to_owned())
            .with_language("TOML"),
        span: span.into(),
        help,
    }
}

/// serde's "unknown field `x`, expected one of `a`, `b`" in our words.
fn reword(message: &str) -> (String, Option<String>) {
    let message = message.trim().replace('\n', "; ");
    let (kind, rest) = match (
        message.strip_prefix("unknown field `"),
        message.strip_prefix("unknown variant `"),
    ) {
        (Some(rest), _) => ("key", rest),
        (_, Some(rest)) => ("value", rest),
        _ => return (message, None),
    };
    let Some((wrong, expected)) = rest.split_once('`') else {
        return (message, None);
    };
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let text = format!("unknown {kind} `{wrong}`");
    let help = match closest(wrong, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", listed(known.iter().copied())),
    };
    (text, Some(help))
}

/// The candidate that is spelt most alike, if one is near enough to be meant.
pub fn closest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| {
            let distance =
                strsim::damerau_levenshtein(&wrong.to_lowercase(), &candidate.to_lowercase());
            let contained = wrong.len() > 3
                && (candidate.contains(wrong) || wrong.contains(candidate) && candidate.len() > 3);
            (
                if contained { distance.min(2) } else { distance },
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The names in backticks, separated by commas.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
