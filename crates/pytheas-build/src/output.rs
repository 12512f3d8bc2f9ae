//! Where a build's result goes: made beside it in a scratch folder, swapped in whole at the end.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::RECORD_FILE;

use crate::{
    error::{BuildError, io_error},
    scratch,
};

/// A place that a result cannot go to.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OutputError {
    /// Something else lies there.
    #[error("`{}` is not empty and no earlier build", dir.display())]
    #[diagnostic(
        code(pytheas::build::not_empty),
        help("choose another folder with `-o`, or remove it yourself")
    )]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// A file lies there.
    #[error("`{}` is not a folder", dir.display())]
    #[diagnostic(
        code(pytheas::build::not_a_folder),
        help("choose another folder with `-o`, or remove it yourself")
    )]
    NotAFolder {
        /// The path.
        dir: PathBuf,
    },
    /// The result would hold the project, or be the project.
    #[error("`{}` holds the project that is built", dir.display())]
    #[diagnostic(
        code(pytheas::build::holds_project),
        help("choose another folder with `-o`")
    )]
    HoldsProject {
        /// The folder.
        dir: PathBuf,
    },
}

/// The place of a result and the scratch folder beside it.
#[derive(Debug)]
pub(crate) struct Output {
    target: PathBuf,
    scratch: scratch::Scratch,
}

impl Output {
    /// Prepares for a result in `target`.
    pub(crate) fn prepare(target: &Path, project: &Path) -> Result<Self, BuildError> {
        let target = std::path::absolute(target).map_err(io_error("find", target))?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        pytheas_durable::create_dir_all(parent).map_err(io_error("make", parent))?;
        let parent = parent.canonicalize().map_err(io_error("find", parent))?;
        let name = target
            .file_name()
            .map(ToOwned::to_owned)
            .unwrap_or_default();
        let target = if name.is_empty() {
            parent.clone()
        } else {
            parent.join(&name)
        };
        if project.starts_with(&target) {
            return Err(OutputError::HoldsProject { dir: target }.into());
        }
        check_replaceable(&target)?;
        let prefix = format!(".{}{SCRATCH}", name.to_string_lossy());
        let scratch =
            scratch::folder(&parent, &prefix).map_err(io_error("make a folder in", &parent))?;
        Ok(Self { target, scratch })
    }

    /// The folder to build in.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    /// The folder that the result will be in.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the scratch folder's tree into its place; an earlier build there is whole until then.
    pub(crate) fn finish(self) -> Result<PathBuf, BuildError> {
        let fresh = self.scratch();
        let failed = io_error("replace", &self.target);
        pytheas_durable::trees::sync(&fresh).map_err(io_error("sync", &fresh))?;
        let mut tries = 0;
        loop {
            check_replaceable(&self.target)?;
            let placed = if is_empty_or_missing(&self.target) {
                pytheas_durable::move_dir(&fresh, &self.target)
            } else {
                let aside = self.scratch.path().join("old");
                pytheas_durable::exchange_dirs(&fresh, &self.target, &aside)
            };
            match placed {
                Ok(_) => break,
                // Another build's result came, or was being replaced, just now: the last one wins.
                Err(error) if tries < TRIES && fresh.is_dir() && is_race(&error) => tries += 1,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(self.target)
    }
}

/// In the names of scratch folders, after the result's.
pub(crate) const SCRATCH: &str = ".pytheas-build-";

/// How often a place is looked at again that another build changes at the same time.
const TRIES: usize = 20;

fn is_race(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

fn is_empty_or_missing(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut children) => children.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn check_replaceable(dir: &Path) -> Result<(), OutputError> {
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if !metadata.is_dir() => Err(OutputError::NotAFolder {
            dir: dir.to_owned(),
        }),
        _ if is_empty_or_missing(dir) || dir.join(RECORD_FILE).is_file() => Ok(()),
        _ => Err(OutputError::NotEmpty {
            dir: dir.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_builds_that_end_at_once_in_one_folder_all_succeed_and_one_is_there() {
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out");
            let outputs: Vec<Output> = (0..4)
                .map(|number| {
                    let output = Output::prepare(&target, Path::new("/nowhere")).unwrap();
                    fs::create_dir(output.scratch()).unwrap();
                    let record = output.scratch().join(RECORD_FILE);
                    pytheas_durable::replace(&record, format!("{number}").as_bytes()).unwrap();
                    output
                })
                .collect();
            let start = std::sync::Barrier::new(outputs.len());
            std::thread::scope(|scope| {
                for output in outputs {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        output
                            .finish()
                            .unwrap_or_else(|error| panic!("{round}: {error:?}"));
                    });
                }
            });
            assert!(target.join(RECORD_FILE).is_file());
            let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
            assert_eq!(names.len(), 1, "{names:?}");
        }
    }
}
