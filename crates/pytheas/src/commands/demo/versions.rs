//! The demo's app: greenhouse as it lies in `examples/`, and its next versions by patch.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use miette::{Context as _, IntoDiagnostic, miette};

static GREENHOUSE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../examples/greenhouse");

/// Writes greenhouse 1.0.0 into `dir`.
pub(super) fn unpack(dir: &Path) -> miette::Result<()> {
    write_all(&GREENHOUSE, dir)
}

/// Writes an example into `dir`.
pub(super) fn write_all(from: &Dir<'_>, dir: &Path) -> miette::Result<()> {
    for file in from.files() {
        let path = dir.join(file.path());
        if let Some(parent) = path.parent() {
            pytheas_durable::create_dir_all(parent).into_diagnostic()?;
        }
        pytheas_durable::replace(&path, file.contents())
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write `{}`", path.display()))?;
    }
    from.dirs()
        // What a developer's test runs may have left beside the sources.
        .filter(|child| {
            let name = child
                .path()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            !name.starts_with('.') && name != "__pycache__" && name != "data" && name != "dist"
        })
        .try_for_each(|child| write_all(child, dir))
}

/// Turns the greenhouse in `dir` into `version`, by its documented patch.
pub(super) fn patch(dir: &Path, version: &str) -> miette::Result<Vec<PathBuf>> {
    let name = format!("releases/{version}.patch");
    let text = GREENHOUSE
        .get_file(&name)
        .and_then(|file| file.contents_utf8())
        .ok_or_else(|| miette!("the example has no `{name}`"))?;
    let mut changed = Vec::new();
    for diff in split(text) {
        let patch = diffy::Patch::from_str(diff)
            .into_diagnostic()
            .wrap_err(name.clone())?;
        let file = patch
            .modified()
            .and_then(|path| path.strip_prefix("b/"))
            .unwrap_or_default();
        let path = dir.join(file);
        let old = std::fs::read_to_string(&path)
            .into_diagnostic()
            .wrap_err_with(|| format!("`{name}` patches `{file}`"))?;
        let new = diffy::apply(&old, &patch)
            .into_diagnostic()
            .wrap_err_with(|| format!("`{name}` does not fit `{file}`"))?;
        pytheas_durable::replace(&path, new.as_bytes()).into_diagnostic()?;
        changed.push(PathBuf::from(file));
    }
    Ok(changed)
}

/// The diffs of single files in a patch.
fn split(text: &str) -> Vec<&str> {
    let starts: Vec<usize> = text
        .match_indices("--- ")
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n')
        .collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &text[*start..end])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_patches_fit_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        unpack(dir.path()).unwrap();
        let version = || std::fs::read_to_string(dir.path().join("pyproject.toml")).unwrap();
        assert!(version().contains("version = \"1.0.0\""));
        for next in ["1.1.0", "1.2.0"] {
            let changed = patch(dir.path(), next).unwrap();
            assert!(changed.len() >= 2, "{changed:?}");
            assert!(version().contains(&format!("version = \"{next}\"")));
        }
    }
}
