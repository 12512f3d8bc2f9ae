//! `bytecode` of a target: bundles without sources, or without byte code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::sources;
use crate::error::{BuildError, io_error};

const CACHE: &str = "__pycache__";

/// Takes the sources of the modules under `dirs` away, and puts their byte code, named by `suffix`,
/// where Python looks for it then: `module.pyc` beside where the source was. Sources without byte
/// code and those in `kept` stay.
pub(crate) fn drop_sources(
    dirs: &[PathBuf],
    suffix: &str,
    kept: &[PathBuf],
) -> Result<(), BuildError> {
    for source in sources(dirs)? {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let code = source.with_file_name(CACHE).join(format!("{stem}{suffix}"));
        if kept.contains(&source) || !code.is_file() {
            continue;
        }
        let beside = source.with_extension("pyc");
        move_file(&code, &beside).map_err(io_error("move", &code))?;
        fs::remove_file(&source).map_err(io_error("remove", &source))?;
        let _ = fs::remove_dir(source.with_file_name(CACHE)); // when it is empty
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "within a scratch folder, which is synced as a whole"
)]
fn move_file(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)
}

/// Takes all byte code under `dir` away.
pub(crate) fn drop_all(dir: &Path) -> Result<(), BuildError> {
    let mut walk = WalkDir::new(dir).into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| io_error("read", dir)(error.into()))?;
        if entry.file_type().is_dir() && entry.file_name() == CACHE {
            walk.skip_current_dir();
            pytheas_durable::remove_tree(entry.path()).map_err(io_error("remove", entry.path()))?;
        }
    }
    Ok(())
}
