//! The flags that say what is locked or built, shared by the verbs that do.

use std::path::PathBuf;

use pytheas_project::{Project, RequirementSource};

use crate::context::Context;

/// What to lock or build.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InputArgs {
    /// The project: its folder, one of its files (`pyproject.toml`, `setup.py`, `Pipfile`,
    /// `requirements.txt`, `environment.yml`), a script, or a zip application [default: .]
    #[arg(value_name = "PROJECT")]
    path: Option<PathBuf>,
    /// The same, as a flag
    #[arg(
        long = "project",
        short = 'C',
        value_name = "PATH",
        conflicts_with = "path"
    )]
    project: Option<PathBuf>,
    /// A published package instead of a project, e.g. `octoprint==1.10.3`
    #[arg(long, value_name = "REQUIREMENT", conflicts_with = "path")]
    from: Option<String>,
    /// With `--from`: another package beside it, such as a plug-in
    #[arg(long = "with", value_name = "REQUIREMENT", requires = "from")]
    with: Vec<String>,
}

impl InputArgs {
    /// Reads the project, and says what was decided while reading.
    pub(crate) fn load(&self, context: &Context) -> miette::Result<Project> {
        let here = PathBuf::from(".");
        let path = self
            .path
            .as_ref()
            .or(self.project.as_ref())
            .unwrap_or(&here);
        let project = match &self.from {
            Some(requirement) => Project::published(requirement, &self.with, path)?,
            None => Project::load(path)?,
        };
        for note in &project.notes {
            context.note(format!("note: {note}"));
        }
        Ok(project)
    }
}

/// What was read, for people.
pub(crate) fn shown(project: &Project) -> String {
    let kind = match project.source {
        RequirementSource::Pyproject => "[project]",
        RequirementSource::Poetry => "[tool.poetry]",
        RequirementSource::BuildBackend => "by its build back end",
        RequirementSource::Script => "inline script metadata",
        RequirementSource::Nothing if project.input.is_empty() => {
            return "a package without requirements".to_owned();
        }
        RequirementSource::Nothing => "without requirements",
        _ => return project.input.clone(),
    };
    format!("{}, {kind}", project.input)
}
