//! What can be wrong with a requirements file, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;

/// A requirements file that cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RequirementsError {
    /// It cannot be read.
    #[error("cannot read `{}`{}", path.display(), named_by(from.as_ref()))]
    #[diagnostic(code(pytheas::project::requirements), help("{}", help_for(source)))]
    Read {
        /// The file.
        path: PathBuf,
        /// The file and line that name it.
        from: Option<(PathBuf, usize)>,
        /// What the system says.
        source: io::Error,
    },
    /// It names itself, perhaps by way of other files; pip refuses that, too.
    #[error("`{}` names itself: {}", path.display(), chain(path, through))]
    #[diagnostic(
        code(pytheas::project::requirements::circular),
        help(
            "take one of these lines out, or move what both files share to a third that both name"
        )
    )]
    Circular {
        /// The file.
        path: PathBuf,
        /// Each file on the way back to it, with the line that names the next one.
        through: Vec<(PathBuf, usize)>,
    },
    /// A line that asks for nothing.
    #[error("`{}` line {line}: `{text}` is no requirement{reason}", path.display())]
    #[diagnostic(code(pytheas::project::requirements::line))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is written.
        text: String,
        /// What is wrong with it, after a colon; nothing where that cannot be told.
        reason: String,
        /// What to do.
        #[help]
        help: String,
    },
    /// Its text is not UTF-8.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(Box<crate::source::InputError>),
}

fn help_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "save it as UTF-8 (PowerShell's `>` writes UTF-16)",
        io::ErrorKind::PermissionDenied => "check its permissions",
        _ => "check the path; it is relative to the file that names it",
    }
}

fn chain(path: &Path, through: &[(PathBuf, usize)]) -> String {
    let mut parts: Vec<String> = through
        .iter()
        .map(|(file, line)| format!("`{}` line {line}", file.display()))
        .collect();
    parts.push(format!("`{}`", path.display()));
    parts.join(" → ")
}

fn named_by(from: Option<&(PathBuf, usize)>) -> String {
    from.map_or(String::new(), |(file, line)| {
        format!(", named by `{}` line {line}", file.display())
    })
}
