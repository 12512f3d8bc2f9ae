//! Which built tree a verb speaks of when none is named.

use std::path::{Path, PathBuf};

use pytheas_project::Project;
use pytheas_release::RECORD_FILE;

/// The tree that is `named`, else the folder one is in when it is a built tree, else `dist/APP` of
/// the project in the folder `project`.
pub(crate) fn of(named: Option<&Path>, project: &Path) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    if !Path::new(RECORD_FILE).is_file()
        && let Ok(project) = Project::load(project)
    {
        let built = project.dir.join("dist").join(project.name.as_str());
        if built.is_dir() {
            return built;
        }
    }
    PathBuf::from(".")
}
